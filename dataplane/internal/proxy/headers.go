package proxy

import (
	"strconv"

	"reverseproxy/dataplane/internal/http1"
)

// Everything that this hop does to header fields is in this file, each rule with
// its reason. Field lines that no rule names are passed on byte for byte and in
// their order.
//
// To the backend:
//
//   - The request line is rebuilt: the target in origin-form, also for a request
//     in absolute-form (RFC 9112 section 3.2.1), and HTTP/1.1, since the version
//     is a matter of each hop (RFC 9110 section 2.5).
//   - Host comes first (RFC 9110 section 7.2) and is the only one: what the client
//     meant (the authority of an absolute-form target wins, RFC 9112 section
//     3.2.2), or the backend's own when the endpoint says so or when an HTTP/1.0
//     client named none.
//   - Fields of this hop and those named by Connection are dropped (RFC 9110
//     section 7.6.1); package http1 marks them. So no client can smuggle its own
//     Proxy-Authorization or Keep-Alive through, nor make the backend close.
//   - Transfer-Encoding is written anew, in the one form that everybody reads the
//     same way; Content-Length has been verified and passes.
//   - TE: trailers is kept, as an offer of this hop, because trailers are passed
//     on (RFC 9110 section 10.1.4). No other coding is offered: none is known.
//   - Upgrade passes when HTTP/1.1 and Connection ask for it (RFC 9110 section
//     7.8), but never "h2c": the backend would speak HTTP/2 through the tunnel
//     and serve paths that no endpoint of the route table forwards (RFC 9113
//     section 3.1 has removed it).
//   - Expect passes (RFC 9110 section 10.1.1), except from HTTP/1.0, where it has
//     no meaning and the client could not read the 100.
//   - Max-Forwards is counted down for OPTIONS (RFC 9110 section 7.6.2).
//   - Via is added (RFC 9110 section 7.6.3), as a line behind those that came.
//   - X-Forwarded-For is the address of the peer, and X-Forwarded-Proto and
//     X-Forwarded-Host are what this hop saw: backends build links and decide about
//     security with them, so that only proxies that the route table trusts may say
//     something else. From those X-Forwarded-For is kept and the address of the
//     peer appended, in one line, since readers differ on several; the other two
//     are kept when there is one line.
//   - X-Request-Id, when the route table asks for ids, is the one of this request:
//     the client's if there is exactly one line and it is short and visible
//     ASCII, else a new one, so that logs cannot be confused with it. It is
//     appended as a line of its own.
//   - What the endpoint's requestHeaders remove or set is dropped, and what they set
//     or add comes last. They cannot name fields that any other rule is about
//     (routetable.CheckEditName).
//   - Forwarded (RFC 7239) passes as it came: it is end to end for whoever uses
//     it, and mixing two notations of one chain would be worse than one.
//
// To the client:
//
//   - The status line is rebuilt with HTTP/1.1, the reason as it came.
//   - Fields of the backend's hop are dropped; Connection says what this hop does:
//     close when it ends, keep-alive when an HTTP/1.0 client asked for that (RFC
//     9112 sections 9.3, 9.6 and C.2.2).
//   - Transfer-Encoding is written anew when the body is sent chunked. Trailer is
//     dropped when it is not.
//   - Via is added. Date is added when there is none (RFC 9110 section 6.6.1).
//   - Server passes: it is the backend's. This proxy has none of its own.
//   - X-Request-Id, when the route table asks for ids, takes the place of the
//     backend's: client and logs then speak of the same request.
//   - Set-Cookie is added when the endpoint's policy chooses by a cookie that the
//     client does not have. Those of the backend pass.
//   - The endpoint's responseHeaders do the same to final responses and to 101, the
//     proxy's own among them, and nothing to other 1xx.
//   - Upgrade passes in a 101 response, whose tunnel is made here, and in a 426,
//     which would say nothing without it (RFC 9110 section 15.5.22).

const (
	via11         = "Via: 1.1 " + Pseudonym + "\r\n"
	via10         = "Via: 1.0 " + Pseudonym + "\r\n"
	chunkedField  = "Transfer-Encoding: chunked\r\n"
	closeField    = "Connection: close\r\n"
	persistField  = "Connection: keep-alive\r\n"
	teField       = "Connection: TE\r\nTE: trailers\r\n"
	upgradeField  = "Connection: Upgrade\r\n"
	upgradeTEs    = "Connection: Upgrade, TE\r\nTE: trailers\r\n"
	protoField    = "X-Forwarded-Proto: http\r\n"
	forwardedFor  = "X-Forwarded-For: "
	forwardedHost = "X-Forwarded-Host: "
	requestIDName = "X-Request-Id: "
)

// appendRequestHead appends the head of the request in e.req as a backend gets it
// that is asked for e.target and has this host.
func (e *Engine) appendRequestHead(dst []byte, c *Conn, backendHost string) []byte {
	r, x := &e.req, c.x
	raw := r.Raw
	dst = append(dst, r.MethodText.Of(raw)...)
	dst = append(dst, ' ')
	dst = append(dst, e.target...)
	dst = append(dst, " HTTP/1.1\r\nHost: "...)
	authority := r.Authority.Of(raw)
	if x.endpoint.ReplaceHost || len(authority) == 0 {
		dst = append(dst, backendHost...)
	} else {
		dst = append(dst, authority...)
	}
	dst = append(dst, "\r\n"...)
	edits := x.endpoint.RequestHeaders
	if edits != nil {
		r.Drop(edits.Drop)
	}

	id := x.note.requestID()
	keepProto, keepHost := false, false
	if x.trusted {
		_, keepProto = r.Only(http1.XForwardedProto)
		_, keepHost = r.Only(http1.XForwardedHost)
	}
	chain := false
	lines := copier{raw: raw}
	for i := range r.Fields {
		f := &r.Fields[i]
		drop := f.Hop
		switch f.ID {
		case http1.Host, http1.TransferEncoding:
			drop = true
		case http1.XForwardedFor:
			chain = chain || x.trusted && !f.Hop
			drop = true
		case http1.XForwardedProto:
			drop = !keepProto
		case http1.XForwardedHost:
			drop = !keepHost
		case http1.Upgrade:
			drop = !x.upgrade
		case http1.Expect:
			drop = drop || r.Minor == 0
		case http1.MaxForwards:
			drop = drop || r.Method == http1.OPTIONS
		case http1.XRequestID:
			drop = drop || id != nil
		}
		dst = lines.line(dst, f, drop)
	}
	dst = lines.end(dst)

	if r.Framing == http1.Chunked {
		dst = append(dst, chunkedField...)
	}
	switch {
	case x.upgrade && r.TETrailers:
		dst = append(dst, upgradeTEs...)
	case x.upgrade:
		dst = append(dst, upgradeField...)
	case r.TETrailers:
		dst = append(dst, teField...)
	}
	if r.Method == http1.OPTIONS && r.MaxForwards > 0 {
		dst = append(dst, "Max-Forwards: "...)
		dst = strconv.AppendInt(dst, r.MaxForwards-1, 10)
		dst = append(dst, "\r\n"...)
	}
	if r.Minor > 0 {
		dst = append(dst, via11...)
	} else {
		dst = append(dst, via10...)
	}
	dst = append(dst, forwardedFor...)
	if chain {
		dst = appendChain(dst, r)
	}
	dst = append(dst, c.remote...)
	dst = append(dst, "\r\n"...)
	if !keepProto {
		dst = append(dst, protoField...)
	}
	if len(authority) > 0 && !keepHost {
		dst = append(dst, forwardedHost...)
		dst = append(dst, authority...)
		dst = append(dst, "\r\n"...)
	}
	dst = appendRequestID(dst, id)
	if edits != nil {
		dst = edits.Lines.Append(dst, e.values(c))
	}
	return append(dst, "\r\n"...)
}

// appendRequestID appends the X-Request-Id line, nothing when id is nil.
func appendRequestID(dst, id []byte) []byte {
	if id == nil {
		return dst
	}
	dst = append(dst, requestIDName...)
	dst = append(dst, id...)
	return append(dst, "\r\n"...)
}

// clientsID returns the request id that the client has chosen, nil when there is
// none that can be kept.
func clientsID(r *http1.Request) (id []byte) {
	value, ok := r.Only(http1.XRequestID)
	if !ok || value.Len() == 0 || value.Len() > maxID {
		return nil
	}
	id = value.Of(r.Raw)
	for _, c := range id {
		if c <= ' ' || c > '~' {
			return nil
		}
	}
	return id
}

// appendChain appends the addresses that came in X-Forwarded-For.
func appendChain(dst []byte, r *http1.Request) []byte {
	for i := range r.Fields {
		f := &r.Fields[i]
		if f.ID == http1.XForwardedFor && !f.Hop && f.Value.Len() > 0 {
			dst = append(dst, f.Value.Of(r.Raw)...)
			dst = append(dst, ", "...)
		}
	}
	return dst
}

// upgradable reports whether the upgrade that r asks for, if any, is passed on.
func upgradable(r *http1.Request) bool {
	if !r.Upgrade {
		return false
	}
	for i := range r.Fields {
		if r.Fields[i].ID == http1.Upgrade && namesH2C(r.Fields[i].Value.Of(r.Raw)) {
			return false
		}
	}
	return true
}

// namesH2C reports whether "h2c" is in v in any letter case; as a part of another
// name too, there is no other protocol of that kind.
func namesH2C(v []byte) bool {
	for ; len(v) >= 3; v = v[1:] {
		if v[0]|0x20 == 'h' && v[1] == '2' && v[2]|0x20 == 'c' {
			return true
		}
	}
	return false
}

// delimited is how the client finds the end of a response's body.
type delimited uint8

const (
	byHead  delimited = iota // no body, or Content-Length
	byChunk                  // chunked
	byClose
)

// responseFraming returns how the client of a response finds its end.
func responseFraming(r *http1.Response, how reframe) delimited {
	switch {
	case how == toChunk || r.Framing == http1.Chunked && how == asIs:
		return byChunk
	case how == toClose || r.Framing == http1.UntilClose:
		return byClose
	}
	return byHead
}

// appendResponseHead appends the head of a final response as the client gets it.
// minor is the client's version; date is a whole Date line; id is nil when requests
// have none, and cookie, a whole line, when the client is given none; lines are those
// that the endpoint adds.
func appendResponseHead(dst []byte, r *http1.Response, end delimited, keep bool, minor uint8, date, id, cookie, lines []byte) []byte {
	dst = appendStatus(dst, r)
	dated := false
	offer := r.Status == 426 && r.Upgrade
	fields := copier{raw: r.Raw}
	for i := range r.Fields {
		f := &r.Fields[i]
		drop := f.Hop
		switch f.ID {
		case http1.Upgrade:
			drop = !offer
		case http1.TransferEncoding:
			drop = true
		case http1.Trailer:
			drop = drop || end != byChunk
		case http1.Date:
			dated = dated || !drop
		case http1.XRequestID:
			drop = drop || id != nil
		}
		dst = fields.line(dst, f, drop)
	}
	dst = fields.end(dst)
	if end == byChunk {
		dst = append(dst, chunkedField...)
	}
	if !dated {
		dst = append(dst, date...)
	}
	dst = appendVia(dst, r)
	dst = appendRequestID(dst, id)
	dst = append(dst, cookie...)
	dst = append(dst, lines...)
	if offer {
		dst = append(dst, upgradeField...)
	}
	switch {
	case !keep:
		dst = append(dst, closeField...)
	case minor == 0:
		dst = append(dst, persistField...)
	}
	return append(dst, "\r\n"...)
}

// appendInterimHead appends a 1xx response other than 101.
func appendInterimHead(dst []byte, r *http1.Response) []byte {
	dst = appendStatus(dst, r)
	lines := copier{raw: r.Raw}
	for i := range r.Fields {
		f := &r.Fields[i]
		dst = lines.line(dst, f, f.Hop || f.ID == http1.TransferEncoding)
	}
	dst = lines.end(dst)
	return append(dst, "\r\n"...)
}

// appendSwitchHead appends a 101 response; id is nil when requests have none, and cookie, a
// whole line, when the client is given none; lines are those that the endpoint adds.
func appendSwitchHead(dst []byte, r *http1.Response, id, cookie, lines []byte) []byte {
	dst = appendStatus(dst, r)
	fields := copier{raw: r.Raw}
	for i := range r.Fields {
		f := &r.Fields[i]
		drop := f.Hop && f.ID != http1.Upgrade || f.ID == http1.TransferEncoding || f.ID == http1.ContentLength ||
			f.ID == http1.XRequestID && id != nil
		dst = fields.line(dst, f, drop)
	}
	dst = fields.end(dst)
	dst = append(dst, upgradeField...)
	dst = appendVia(dst, r)
	dst = appendRequestID(dst, id)
	dst = append(dst, cookie...)
	dst = append(dst, lines...)
	return append(dst, "\r\n"...)
}

func appendStatus(dst []byte, r *http1.Response) []byte {
	dst = append(dst, "HTTP/1.1 "...)
	dst = append(dst, byte('0'+r.Status/100), byte('0'+r.Status/10%10), byte('0'+r.Status%10), ' ')
	dst = append(dst, r.Reason.Of(r.Raw)...)
	return append(dst, "\r\n"...)
}

func appendVia(dst []byte, r *http1.Response) []byte {
	if r.Minor > 0 {
		return append(dst, via11...)
	}
	return append(dst, via10...)
}

// copier copies field lines, those next to each other in one go.
type copier struct {
	raw      []byte
	from, to uint32 // not copied yet
}

func (l *copier) line(dst []byte, f *http1.Field, drop bool) []byte {
	if !drop && l.to == f.Line.Start {
		l.to = f.Line.End
		return dst
	}
	dst = l.end(dst)
	if !drop {
		l.from, l.to = f.Line.Start, f.Line.End
	}
	return dst
}

func (l *copier) end(dst []byte) []byte {
	dst = append(dst, l.raw[l.from:l.to]...)
	l.from, l.to = 0, 0
	return dst
}

// appendChunk appends p as one chunk (RFC 9112 section 7.1); nothing when it is
// empty, since an empty chunk is the last one.
func appendChunk(dst, p []byte) []byte {
	if len(p) == 0 {
		return dst
	}
	dst = strconv.AppendUint(dst, uint64(len(p)), 16)
	dst = append(dst, "\r\n"...)
	dst = append(dst, p...)
	return append(dst, "\r\n"...)
}

// dateFormat is an IMF-fixdate (RFC 9110 section 5.6.7).
const dateFormat = "Mon, 02 Jan 2006 15:04:05 GMT"

// dateField returns the Date line for now, made once a second.
func (e *Engine) dateField() []byte {
	if second := e.now/1e9 + 1; second != e.dateAt {
		e.dateAt = second
		e.date = append(e.date[:0], "Date: "...)
		e.date = e.clock().UTC().AppendFormat(e.date, dateFormat)
		e.date = append(e.date, "\r\n"...)
	}
	return e.date
}
