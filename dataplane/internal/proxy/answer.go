package proxy

import (
	"strconv"

	"reverseproxy/dataplane/internal/http1"
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
	e.respond(c, status, a.reason, allow, plainText, a.text)
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
		e.respond(c, 200, "OK", "", contentType, string(body))
	})
	e.arm(c)
}

// respond sends a response of the proxy's own and ends the exchange.
func (e *Engine) respond(c *Conn, status int, reason, allow, contentType, body string) {
	x := c.x
	e.release(c)
	x.byProxy, x.code = true, status
	// RFC 9112 section 9.3: the connection persists only when the next request
	// can be found, which is behind all of this one.
	x.keep = !x.wantClose && x.done && !c.origin.last(c) && (!c.eof || c.hasUnused())

	out := append(e.scratch, "HTTP/1.1 "...)
	out = strconv.AppendInt(out, int64(status), 10)
	out = append(out, ' ')
	out = append(out, reason...)
	out = append(out, "\r\n"...)
	out = append(out, e.dateField()...)
	if body != "" {
		out = append(out, "Content-Type: "...)
		out = append(out, contentType...)
		out = append(out, "\r\n"...)
	}
	out = append(out, "Content-Length: "...)
	out = strconv.AppendInt(out, int64(len(body)), 10)
	out = append(out, "\r\n"...)
	if allow != "" {
		out = append(out, "Allow: "...)
		out = append(out, allow...)
		out = append(out, "\r\n"...)
	}
	if x.retryAfter > 0 {
		out = append(out, "Retry-After: "...)
		out = strconv.AppendInt(out, x.retryAfter, 10)
		out = append(out, "\r\n"...)
	}
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
		out = append(out, body...)
	}
	x.responded = true
	x.out += uint64(len(out))
	e.d.Send(c, out)
	e.put(out)
	e.finish(c)
}
