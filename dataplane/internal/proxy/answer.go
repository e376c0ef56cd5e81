package proxy

import (
	"strconv"

	"reverseproxy/dataplane/internal/http1"
	"reverseproxy/dataplane/internal/table"
	"reverseproxy/proto/routetable"
)

// own is what the proxy answers itself, by status. The text says what happened to
// the client's request and nothing about what is behind the proxy.
var own = map[int]struct{ reason, text string }{
	200: {"OK", ""},
	400: {"Bad Request", "The request is not valid HTTP.\n"},
	404: {"Not Found", "There is nothing here.\n"},
	405: {"Method Not Allowed", "The method is not allowed here.\n"},
	408: {"Request Timeout", "The request did not arrive in time.\n"},
	414: {"URI Too Long", "The request target is too long.\n"},
	429: {"Too Many Requests", "More requests have come than may.\n"},
	431: {"Request Header Fields Too Large", "The header of the request is too large.\n"},
	501: {"Not Implemented", "The request needs something that is not supported here.\n"},
	502: {"Bad Gateway", "The backend could not be reached or gave no valid answer.\n"},
	503: {"Service Unavailable", "Nobody can take the request now.\n"},
	504: {"Gateway Timeout", "The backend did not answer in time.\n"},
	505: {"HTTP Version Not Supported", "The HTTP version is not supported.\n"},
}

const plainText = "text/plain; charset=utf-8"

// answer answers a request instead of a backend, and parts from the backend if
// there is one already. No response head has been sent yet.
func (e *Engine) answer(c *Conn, status int) { e.answerAllow(c, status, "") }

// answerAllow is answer with an Allow field, unless allow is empty.
func (e *Engine) answerAllow(c *Conn, status int, allow string) {
	a, known := own[status]
	if !known {
		a = own[400]
		status = 400
	}
	e.respond(c, &ownAnswer{status: status, reason: a.reason, allow: allow, contentType: plainText, text: a.text})
}

// answerPage answers with the metrics page, which takes too long to render to do
// it here.
func (e *Engine) answerPage(c *Conn) {
	var (
		contentType string
		body        []byte
	)
	serial := c.x.serial
	e.d.Go(func() { contentType, body = e.page() }, func() {
		if c.state != exchange || c.x.serial != serial || c.peer != nil {
			return // the client has left
		}
		if body == nil {
			e.answer(c, 503)
			return
		}
		e.respond(c, &ownAnswer{status: 200, reason: "OK", contentType: contentType, bytes: body})
	})
	e.arm(c)
}

// ownAnswer is an answer of the proxy's own.
type ownAnswer struct {
	status int
	reason string
	// allow is the value of the Allow field; empty: none.
	allow string
	// contentType is that of text or bytes; empty: none.
	contentType string
	text        string
	// lines are further field lines.
	lines []byte
	bytes []byte // the body, when text is empty
}

// respond sends a response of the proxy's own and ends the exchange.
func (e *Engine) respond(c *Conn, a *ownAnswer) {
	x := c.x
	e.release(c)
	x.byProxy, x.code = true, a.status
	// RFC 9112 section 9.3: the connection persists only when the next request
	// can be found, which is behind all of this one.
	x.keep = !x.wantClose && x.done && !c.origin.last(c) && (!c.eof || c.hasUnused())

	out := append(e.scratch, "HTTP/1.1 "...)
	out = strconv.AppendInt(out, int64(a.status), 10)
	out = append(out, ' ')
	out = append(out, a.reason...)
	out = append(out, "\r\n"...)
	out = append(out, e.dateField()...)
	var edits *table.Edits
	if x.endpoint != nil {
		edits = x.endpoint.ResponseHeaders
	}
	size := len(a.text) + len(a.bytes)
	if size > 0 && a.contentType != "" && !edits.Drops("content-type") {
		out = append(out, "Content-Type: "...)
		out = append(out, a.contentType...)
		out = append(out, "\r\n"...)
	}
	if routetable.HasLength(a.status) {
		out = append(out, "Content-Length: "...)
		out = strconv.AppendInt(out, int64(size), 10)
		out = append(out, "\r\n"...)
	}
	if a.allow != "" && !edits.Drops("allow") {
		out = append(out, "Allow: "...)
		out = append(out, a.allow...)
		out = append(out, "\r\n"...)
	}
	if x.retryAfter > 0 && !edits.Drops("retry-after") {
		out = append(out, "Retry-After: "...)
		out = strconv.AppendInt(out, x.retryAfter, 10)
		out = append(out, "\r\n"...)
	}
	out = append(out, a.lines...)
	out = append(out, x.lines...)
	out = appendRequestID(out, x.note.requestID())
	switch {
	case !x.keep:
		out = append(out, closeField...)
	case x.minor == 0:
		out = append(out, persistField...)
	}
	out = append(out, "\r\n"...)
	x.note.sentHead(len(out))
	if x.method != http1.HEAD {
		out = append(out, a.text...)
		out = append(out, a.bytes...)
	}
	x.responded = true
	x.out += uint64(len(out))
	e.d.Send(c, out)
	e.put(out)
	e.finish(c)
}

// reasons are the reason phrases of fixed answers (RFC 9110 section 15, and the
// registry of status codes). A status that is not here has none.
var reasons = map[int]string{
	200: "OK", 201: "Created", 202: "Accepted", 203: "Non-Authoritative Information", 204: "No Content", 205: "Reset Content",
	206: "Partial Content", 207: "Multi-Status", 208: "Already Reported", 226: "IM Used",
	300: "Multiple Choices", 301: "Moved Permanently", 302: "Found", 303: "See Other", 304: "Not Modified", 305: "Use Proxy",
	307: "Temporary Redirect", 308: "Permanent Redirect",
	400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
	406: "Not Acceptable", 407: "Proxy Authentication Required", 408: "Request Timeout", 409: "Conflict", 410: "Gone",
	411: "Length Required", 412: "Precondition Failed", 413: "Content Too Large", 414: "URI Too Long", 415: "Unsupported Media Type",
	416: "Range Not Satisfiable", 417: "Expectation Failed", 421: "Misdirected Request", 422: "Unprocessable Content", 423: "Locked",
	424: "Failed Dependency", 425: "Too Early", 426: "Upgrade Required", 428: "Precondition Required", 429: "Too Many Requests",
	431: "Request Header Fields Too Large", 451: "Unavailable For Legal Reasons",
	500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout",
	505: "HTTP Version Not Supported", 506: "Variant Also Negotiates", 507: "Insufficient Storage", 508: "Loop Detected",
	511: "Network Authentication Required",
}
