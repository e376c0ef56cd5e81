package proxy

import (
	"time"

	"reverseproxy/dataplane/internal/http1"
	"reverseproxy/dataplane/internal/metrics"
)

// responseHead reads the head of a response, and the interim responses before
// it, and sends them on.
func (e *Engine) responseHead(b *Conn, p []byte) {
	c := b.peer
	x := c.x
	x.seen = true
	p, own := e.unused(b, p)
	b.in, b.off = nil, 0 // b may have its next request before this returns
	rest := e.responses(b, p)
	switch {
	case !own:
		e.keep(b, rest, false)
	case len(rest) > 0:
		b.in, b.off = p, len(p)-len(rest)
	default:
		e.putBuffer(p)
	}
}

// responses works through the response heads in p and returns what is the start
// of an incomplete one.
func (e *Engine) responses(b *Conn, p []byte) []byte {
	c := b.peer
	x, r := c.x, &e.resp
	for {
		n, bad := r.Parse(p, &b.scan, http1.Limits{
			HeadBytes: responseHeadBytes, Fields: responseFields,
		}, x.method)
		if bad != nil {
			e.nonsense(c)
			return nil
		}
		if n == 0 {
			return p
		}
		b.scan = http1.Scan{}
		if r.Status >= 200 {
			e.response(b, p[n:])
			return nil
		}
		if r.Status == 101 {
			e.switchProtocols(b, p[n:])
			return nil
		}
		if x.interim++; x.interim > maxInterim {
			e.nonsense(c)
			return nil
		}
		e.interim(b)
		p = p[n:]
	}
}

// interim sends on the 1xx response in e.resp. Every one is passed on (RFC 9110
// section 15.2), but not to a client of HTTP/1.0, which knows none.
func (e *Engine) interim(b *Conn) {
	c := b.peer
	x := c.x
	x.expects = false
	if x.minor > 0 {
		out := appendInterimHead(e.scratch, &e.resp)
		x.note.sentHead(len(out))
		x.out += uint64(len(out))
		e.d.Send(c, out)
		e.put(out)
		e.letGo(x) // the client has had something of a response
		e.throttle(b, c)
	}
	if !x.done {
		e.arm(c)
	}
}

// response sends on a final response whose head is in e.resp. p is what came
// after the head.
func (e *Engine) response(b *Conn, p []byte) {
	c := b.peer
	x, r := c.x, &e.resp
	if x.endpoint.Retry != nil && e.discard(b, p) {
		return
	}
	e.letGo(x)
	if r.Close {
		b.last = true
	}
	b.reframe = asIs
	framing := r.Framing
	if framing == http1.UntilClose && x.minor > 0 {
		// RFC 9112 section 7.1: chunks let the client tell the end of the body
		// from a broken connection, which close does not.
		b.reframe = toChunk
	}
	if framing == http1.Chunked && x.minor == 0 {
		// RFC 9112 section 6.1: never to a client of HTTP/1.0.
		b.reframe = toClose
	}
	x.keep = !x.wantClose && x.done && !c.origin.last(c) &&
		(!c.eof || c.hasUnused()) &&
		b.reframe != toClose && (framing != http1.UntilClose || b.reframe == toChunk)

	e.dropFields(x.endpoint.ResponseHeaders)
	out := appendResponseHead(e.scratch, r, responseFraming(r, b.reframe), x.keep, x.minor, e.dateField(), x.note.requestID(), e.cookieField(x), x.lines)
	head := len(out)
	b.body.Start(framing, r.Length)
	b.untilClose = framing == http1.UntilClose
	var (
		n     int
		bad   *http1.Error
		apart []byte
	)
	if b.reframe == asIs && len(p) >= gatherSize {
		n, bad = b.body.Advance(p)
		apart = p[:n]
	} else {
		out, n, bad = e.appendBody(out, b, p)
	}
	if bad != nil {
		e.put(out)
		e.nonsense(c)
		return
	}
	x.responded, x.code = true, r.Status
	x.out += uint64(len(out) + len(apart))
	x.note.answered(e.now, head)
	e.answered(x, r.Status)
	e.send(c, out, apart)
	e.put(out)
	b.state = relaying
	if b.body.Done() {
		if n < len(p) {
			b.last = true // bytes after the end: whose they are is not known
		}
		e.finish(c)
		return
	}
	e.goOn(b)
}

// answered counts a response of the member.
func (e *Engine) answered(x *request, status int) {
	x.member.Metrics.Response(e.shard, status, time.Duration(e.now-x.chosen))
	if status >= 500 && x.endpoint.FailOn5xx {
		x.member.Health.Failed()
	} else {
		x.member.Health.Succeeded()
	}
}

// goOn has the rest of a response body come, or wait.
func (e *Engine) goOn(b *Conn) {
	c := b.peer
	if b.reframe == asIs && b.body.Left() >= spliceSize && !b.paused && e.d.Queued(c) == 0 {
		e.d.Splice(b, c, b.body.Left())
	} else {
		e.throttle(b, c)
	}
	e.arm(c)
}

// Spliced tells that n more bytes from b have been moved to its client. When these
// were the last that Splice was to move, Data may follow.
func (e *Engine) Spliced(b *Conn, n int64) {
	c := b.peer
	b.body.Skip(n)
	c.x.out += uint64(n)
	if b.body.Done() {
		e.receiving = b
		e.finish(c)
		e.receiving = nil
		return
	}
	e.arm(c)
}

// responseBody passes on what follows the head of a response.
func (e *Engine) responseBody(b *Conn, p []byte) {
	c := b.peer
	x := c.x
	var (
		out []byte
		n   int
		bad *http1.Error
	)
	if b.reframe == asIs {
		n, bad = b.body.Advance(p)
		out = p[:n]
	} else {
		out, n, bad = e.appendBody(e.scratch, b, p)
	}
	if bad != nil {
		// The good part of p is not sent either; the client sees the body end
		// too early, which is the truth.
		e.failed(c, metrics.BadMessage)
		e.cut(c)
		return
	}
	if len(out) > 0 {
		e.d.Send(c, out)
	}
	x.out += uint64(len(out))
	if b.reframe != asIs {
		e.put(out)
	}
	if b.body.Done() {
		if n < len(p) {
			b.last = true
		}
		e.finish(c)
		return
	}
	e.goOn(b)
}

// appendBody appends those bytes of p that belong to the body of b's response,
// in the framing that the client gets, and returns how many of p they were.
func (e *Engine) appendBody(out []byte, b *Conn, p []byte) ([]byte, int, *http1.Error) {
	switch b.reframe {
	case toChunk:
		return appendChunk(out, p), len(p), nil
	case toClose:
		return b.body.Decode(out, p)
	}
	n, bad := b.body.Advance(p)
	return append(out, p[:n]...), n, bad
}

// backendEOF handles the end of a backend connection during an exchange.
func (e *Engine) backendEOF(b *Conn, err error) {
	c := b.peer
	x := c.x
	if b.state == waiting && !x.seen {
		e.closedEarly(b)
	}
	switch {
	case e.replayable(b):
		e.replay(c)
	case b.state == waiting:
		e.attemptFailed(c, metrics.Reset, metrics.RetryReset, 502)
	case b.untilClose && err == nil:
		// The end of the connection is the end of the body. A reset is not.
		if b.reframe == toChunk {
			e.d.Send(c, lastChunk)
			x.out += uint64(len(lastChunk))
		}
		b.last = true
		e.finish(c)
	default:
		e.failed(c, metrics.Reset)
		e.cut(c)
	}
}

var lastChunk = []byte("0\r\n\r\n")

// nonsense answers for a backend that did not speak HTTP.
func (e *Engine) nonsense(c *Conn) {
	e.failed(c, metrics.BadMessage)
	e.answer(c, 502)
}

// finish ends an exchange whose response has been sent whole.
func (e *Engine) finish(c *Conn) {
	x, b := c.x, c.peer
	if b != nil {
		if !x.done || e.d.Queued(b) > maxHeld {
			// RFC 9112 section 9.3: the next request could not be told from the
			// rest of this one.
			b.last = true
		}
		e.release(c)
	}
	silent, keep := x.done && x.goodbye && !c.hasUnused(), x.keep
	e.end(c, x.code)
	switch {
	case keep:
		e.become(c, idle)
		e.putRequest(c)
		e.rest(c)
		if e.reading != c {
			e.requests(c, nil)
		}
	case silent:
		e.closeWhenSent(c)
	default:
		e.lingerClose(c)
	}
}

// cut ends an exchange whose response cannot be completed, so that the client
// can tell: its body is shorter than its Content-Length, or lacks the last
// chunk, or, when only the end of the connection ends it, there is a reset.
func (e *Engine) cut(c *Conn) {
	x, b := c.x, c.peer
	if b != nil {
		c.abort = c.abort || b.reframe == toClose || b.reframe == asIs && b.untilClose
		b.last = true
		e.release(c)
	}
	e.end(c, x.code)
	if c.abort {
		e.closeNow(c)
		return
	}
	e.closeWhenSent(c)
}

// release parts the client's connection from its backend's, which is kept for
// another request if it is fit for one.
func (e *Engine) release(c *Conn) {
	b := c.peer
	if b == nil {
		return
	}
	c.peer, b.peer = nil, nil
	if b.state == relaying && b.body.Done() && !b.last && !b.eof {
		e.resume(b)
		e.putIdle(b, c.x.endpoint.IdleTimeout)
		return
	}
	e.close(b)
}

// failed counts an error of the backend, the first of a request only.
func (e *Engine) failed(c *Conn, why metrics.Reason) {
	x := c.x
	if x.failed || x.member == nil {
		return
	}
	x.failed = true
	x.note.failed(why.String())
	x.member.Metrics.Error(e.shard, why)
	x.member.Health.Failed()
}

// clientFailed counts an error of the client.
func (e *Engine) clientFailed(c *Conn, why metrics.ClientReason) {
	c.x.note.failed(why.String())
	e.metrics.ClientError(e.shard, why)
}

// end counts a request whose exchange is over. Only once for each begin.
func (e *Engine) end(c *Conn, code int) {
	x := c.x
	e.letGo(x)
	if x.counters == nil {
		return
	}
	if x.place != nil {
		e.stopWaiting(x)
	}
	if x.member != nil {
		x.member.End(e.shard)
	}
	e.leave(x)
	until := e.now
	if x.switched > 0 {
		until = x.switched // an upgrade is answered when it is granted
	}
	e.report = metrics.Request{
		Method: methodNames[x.method], Code: code, ByProxy: x.byProxy && !x.itself(),
		Duration: time.Duration(until - x.started), BytesIn: x.in, BytesOut: x.out,
	}
	x.counters.End(e.shard, &e.report)
	x.counters = nil
	if x.lines != nil {
		e.putBuffer(x.lines)
		x.lines = nil
	}
	if x.note != nil {
		e.endNote(c, code)
	}
	x.member, x.endpoint = nil, nil
}

var methodNames = [...]string{
	http1.OtherMethod: "other", http1.GET: "GET", http1.HEAD: "HEAD", http1.POST: "POST",
	http1.PUT: "PUT", http1.DELETE: "DELETE", http1.OPTIONS: "OPTIONS", http1.PATCH: "PATCH",
	http1.CONNECT: "CONNECT", http1.TRACE: "TRACE",
}
