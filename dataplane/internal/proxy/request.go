package proxy

import (
	"reverseproxy/dataplane/internal/http1"
	"reverseproxy/dataplane/internal/metrics"
	"reverseproxy/dataplane/internal/table"
)

// requests works through what a client has sent, one request after the other,
// until one has to wait: for more bytes, for a backend, or for the client to
// read what it was answered.
func (e *Engine) requests(c *Conn, p []byte) {
	e.reading = c
	p, own := e.unused(c, p)
	full := false
	for len(p) > 0 && (c.state == idle || c.state == head) {
		if full = e.d.Queued(c) > highWater; full {
			break
		}
		n := e.request(c, p)
		if n == 0 {
			break
		}
		p = p[n:]
	}
	e.reading = nil
	switch c.state {
	case closed, linger, closing:
		return // whatever else the client sent is not answered
	}
	e.keep(c, p, own)
	switch {
	case c.state == exchange:
		if len(p) > 0 {
			e.pause(c) // pipelined: its turn comes when this one is answered
		}
	case full:
		e.pause(c)
	case c.eof:
		e.closeWhenSent(c)
	default:
		e.resume(c)
	}
}

// request takes the next request from the start of p and returns how many bytes
// of p it took, 0 when the head is not complete or not acceptable.
func (e *Engine) request(c *Conn, p []byte) int {
	t := e.live.Load()
	if t == nil {
		e.refuse(c, 503)
		return 0
	}
	if c.state == idle {
		switch n := emptyLines(p); {
		case n > 0:
			return n
		case len(p) == 1 && p[0] == '\r':
			return 0
		}
	}
	r := &e.req
	n, bad := r.Parse(p, &c.scan, http1.Limits{
		HeadBytes: t.Limits.HeadBytes, Fields: t.Limits.Fields, TargetBytes: t.Limits.TargetBytes,
	})
	if bad != nil {
		e.refuse(c, bad.Status)
		return 0
	}
	if n == 0 {
		if c.state == idle {
			e.become(c, head)
			e.d.After(c, e.now+int64(t.Limits.HeaderTimeout))
		}
		return 0
	}
	c.scan = http1.Scan{}
	e.become(c, exchange)
	c.body.Start(r.Framing, r.Length)
	m, bad := c.body.Advance(p[n:])
	x := e.newRequest(c)
	x.in, x.done = uint64(n+m), c.body.Done()
	x.method, x.minor, x.wantClose, x.goodbye = r.Method, r.Minor, r.Close, r.Close
	if t.TrustedProxies != nil {
		e.lookBehind(c, t.TrustedProxies)
	}
	e.note(c, t, r)
	if bad != nil {
		e.begin(c, nil)
		x.wantClose = true
		e.answer(c, bad.Status)
		return 0
	}
	e.route(c, t, p[n:n+m])
	return n + m
}

// emptyLines returns the length of the empty lines at the start of p. Before a
// request they mean nothing (RFC 9112 section 2.2: some clients end a body with
// one), so they are not the start of one that must then come in time.
func emptyLines(p []byte) (n int) {
	for len(p)-n >= 2 && p[n] == '\r' && p[n+1] == '\n' {
		n += 2
	}
	return n
}

// route decides who answers the request in e.req by the route table. The request
// does not hold on to it: a tunnel can outlive many. body is the part of its body
// that is here already.
func (e *Engine) route(c *Conn, t *table.Table, body []byte) {
	r, x := &e.req, c.x
	switch r.Method {
	case http1.CONNECT:
		// RFC 9110 section 9.3.6: for forward proxies. No resource here has it.
		e.begin(c, nil)
		x.wantClose = true
		e.answer(c, 501)
		return
	case http1.TRACE:
		// RFC 9110 section 9.3.8: reflecting a request would show a script in
		// the client what the client's own fields hold. Refused before
		// Max-Forwards is even looked at, as other gateways do.
		e.begin(c, nil)
		e.answerAllow(c, 405, allowed)
		return
	case http1.OPTIONS:
		// RFC 9110 sections 3.7 and 9.3.7: a gateway is the origin server for
		// its clients, so a question about the server as a whole is a question
		// about it. Section 7.6.2: Max-Forwards 0 ends here as well.
		if r.Form == http1.AsteriskForm || r.Path.Len() == 0 && !r.HasQuery || r.MaxForwards == 0 {
			e.begin(c, nil)
			e.answerAllow(c, 200, allowed)
			return
		}
	}
	e.ask()
	found := t.Match(&e.query)
	e.begin(c, found.Endpoint)
	if s := e.samples; s != nil && s.Due() {
		e.sample(found.Endpoint)
	}
	switch {
	case found.BadPath:
		x.wantClose = true
		e.answer(c, 400)
	case found.Endpoint != nil:
		e.forgetIdle(t)
		e.prepare(c)
		e.admit(c, t, body)
	case found.Allow != "":
		e.answerAllow(c, 405, found.Allow)
	case e.page != nil && t.MetricsOnProxyPort && string(e.query.Path) == "/metrics" &&
		(r.Method == http1.GET || r.Method == http1.HEAD):
		e.answerPage(c)
	default:
		e.answer(c, 404)
	}
}

// sample keeps what the request in e.query looks like. Without a valid path it is no
// request that a route table could decide about.
func (e *Engine) sample(by *table.Endpoint) {
	path := e.query.NormalPath()
	if len(path) == 0 {
		return
	}
	name := ""
	if by != nil {
		name = by.Name
	}
	e.samples.Add(e.query.Method, e.query.Host, path, name)
}

// ask makes e.query the request in e.req.
func (e *Engine) ask() {
	r, q := &e.req, &e.query
	q.Method, q.Host, q.Path = r.MethodText.Of(r.Raw), r.Authority.Of(r.Raw), r.Path.Of(r.Raw)
	if len(q.Path) == 0 {
		q.Path = rootPath
	}
	q.Query, q.HasQuery = r.Query.Of(r.Raw), r.HasQuery
}

// allowed is what Allow says about the proxy as a whole.
const allowed = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"

var rootPath = []byte("/")

// forward gives the request in e.req to a backend of its endpoint, which is of t.
func (e *Engine) forward(c *Conn, t *table.Table, body []byte) {
	if e.aim(c) {
		e.give(c, t, body)
	}
}

// aim finds out what the backend of the request in e.req is chosen by, and what it is
// asked for; false: there is nothing to ask for, and the client has been told so.
func (e *Engine) aim(c *Conn) bool {
	x := c.x
	if !x.endpoint.Rewrite(&e.query) {
		e.answer(c, 400)
		return false
	}
	if x.endpoint.Pool.Policy != table.RoundRobin {
		e.consider(c, x.endpoint.Pool)
	}
	return true
}

// give gives the request in e.req, which has been aimed, to the member that has been
// taken for it, or else to one that is chosen now.
func (e *Engine) give(c *Conn, t *table.Table, body []byte) {
	x := c.x
	if x.member == nil {
		x.member = e.choose(x)
	}
	switch {
	case x.member != nil:
	case x.endpoint.Pool.Full():
		e.wait(c, t, body, metrics.BackendsFull)
		return
	default:
		e.nobody(c)
		return
	}
	x.chosen = e.now
	// From now on the request shows in what is in flight. It was chosen for by t, so if
	// another table has come into force, somebody may have seen already that nothing
	// is in flight to a backend that the new one drains.
	if now := e.live.Load(); now != t {
		e.routeAgain(c, now, body)
		return
	}
	e.deliver(c, body, true)
}

// deliver sends the request in e.req, with what has come of its body, to the chosen
// member. reuse: over a connection that was used before, if there is a fit one.
func (e *Engine) deliver(c *Conn, body []byte, reuse bool) {
	r, x := &e.req, c.x
	to := x.member
	x.upgrade, x.seen, x.asked = upgradable(r), false, e.now
	x.expects = r.ExpectContinue && r.Minor > 0 && len(body) == 0 && !x.done

	e.target = x.endpoint.AppendTarget(e.target[:0], to.Backend, &e.query)
	out := e.appendRequestHead(e.scratch, c, to.Host)
	apart := body
	if len(body) < gatherSize {
		out, apart = append(out, body...), nil
	}

	// A request that is complete and may be sent again, but cannot be held because it
	// is too long, is not put at risk. Nor does a connection that has rested turn into
	// another protocol: it still has the deadline of its rest.
	repeatable, fits := x.done && idempotent(x.method), len(r.Raw)+len(body) <= maxHeld
	replay := repeatable && !x.upgrade && fits
	var b *Conn
	if reuse && (replay || !repeatable && !x.upgrade) {
		b = e.takeIdle(to.Health.State, replay)
	}
	held := replay && b != nil
	if b == nil {
		b = e.dial(c)
	} else {
		c.peer, b.peer = b, c
	}
	if x.endpoint.Retry != nil {
		held = fits && (b.state == dialing || idempotent(x.method))
	}
	if held && x.held == nil {
		x.held, x.head = append(append(e.buffer(), r.Raw...), body...), int32(len(r.Raw))
	}
	e.send(b, out, apart)
	e.put(out)
	if !x.done {
		e.throttle(c, b)
	}
	e.arm(c)
}

// routeAgain takes back that a backend was chosen for the request in e.req, and
// routes it by the table that is in force now.
func (e *Engine) routeAgain(c *Conn, now *table.Table, body []byte) {
	x := c.x
	if x.member != nil {
		x.member.End(e.shard)
	}
	x.counters.Withdraw(e.shard)
	x.member, x.endpoint, x.counters = nil, nil, nil
	x.choice, x.setCookie = table.Choice{}, false
	x.until, x.lines = 0, x.lines[:0]
	if x.note != nil {
		x.note.version = now.Version
	}
	e.route(c, now, body)
}

// nobody answers a request that no backend may get.
func (e *Engine) nobody(c *Conn) {
	why := metrics.NoBackend
	switch p := c.x.endpoint.Pool; {
	case p.Unhealthy():
		why = metrics.NoneHealthy
	case p.Unresolved():
		why = metrics.NoAddress
	}
	c.x.counters.Refused(why)
	c.x.note.failed(why.String())
	e.answer(c, 503)
}

// send sends a head, with what was copied behind it, and the rest of what has come
// of the body, if any.
func (e *Engine) send(to *Conn, head, rest []byte) {
	if len(rest) > 0 {
		e.d.SendBoth(to, head, rest)
		return
	}
	e.d.Send(to, head)
}

// requestBody passes on what follows the head.
func (e *Engine) requestBody(c *Conn, p []byte) {
	x := c.x
	if x.done {
		p, own := e.unused(c, p)
		e.keep(c, p, own)
		e.pause(c)
		return
	}
	x.expects = false // or does no longer
	n, bad := c.body.Advance(p)
	x.in += uint64(n)
	if bad != nil {
		// What has been sent cannot be taken back, but it must not look
		// complete.
		x.wantClose = true
		if x.responded {
			e.cut(c)
			return
		}
		e.answer(c, bad.Status)
		return
	}
	if x.done = c.body.Done(); x.done {
		x.asked = e.now
	}
	switch {
	case x.place != nil:
		e.holdInLine(c, p[:n])
	case x.held != nil:
		e.hold(x, p[:n])
	}
	if b := c.peer; b != nil && n > 0 {
		e.d.Send(b, p[:n])
		e.throttle(c, b)
	}
	if rest := p[n:]; len(rest) > 0 {
		e.keep(c, rest, false)
		e.pause(c)
	} else if x.done {
		e.resume(c)
	}
	e.arm(c)
}

// stopsSending handles a client that ends its request too early because it has
// seen the response begin. RFC 9112 section 9.5 tells it to close its side of the
// connection; it still reads. The backend sees the request end where it did.
func (e *Engine) stopsSending(c *Conn) {
	if c.peer != nil {
		e.d.CloseWrite(c.peer)
	}
	e.arm(c)
}

// clientGone ends a session whose client cannot or will not go on.
func (e *Engine) clientGone(c *Conn, err error) {
	if c.state == exchange {
		code := 499
		if c.x.responded {
			code = c.x.code
		}
		e.release(c)
		e.end(c, code)
		e.close(c)
		return
	}
	// RFC 9112 section 8: an incomplete head may be left unanswered.
	if err != nil {
		e.close(c)
		return
	}
	e.closeWhenSent(c)
}

// exchangeTimeout handles a request in progress for which time has run out: that
// for all of it, or that in which nothing has moved.
func (e *Engine) exchangeTimeout(c *Conn) {
	x, b := c.x, c.peer
	if x.place != nil {
		e.overLimit(c, 503, metrics.QueueTimeout, tryAgain)
		return
	}
	idle, stopped, unread := metrics.IdleTimeout, metrics.BodyTimeout, metrics.ReadTimeout
	overdue := x.until > 0 && e.now >= x.until
	switch {
	case overdue:
		idle, stopped, unread = metrics.RequestTimeout, metrics.TooSlow, metrics.TooSlow
	case x.pausing():
		e.endPause(c)
		return
	case e.tryOver(c):
		e.attemptFailed(c, metrics.TryTimeout, metrics.RetryTimeout, 504)
		return
	case e.waitsFor(c) < c.mark:
		e.arm(c) // slow, but alive
		return
	}
	switch {
	case x.pausing():
		// Nobody has the request, so nobody is to blame for the time.
		x.note.failed(idle.String())
		e.answer(c, 504)
	case x.endpoint == nil:
		e.end(c, 499)
		e.close(c)
	case x.responded:
		// Which side is stuck? The client, if it does not take what it was sent;
		// the backend otherwise.
		if c.abort = e.d.Queued(c) > 0; c.abort {
			e.clientFailed(c, unread)
		} else {
			e.failed(c, idle)
		}
		e.cut(c)
	case !x.done && !x.expects && b != nil && e.d.Queued(b) == 0:
		// RFC 9110 section 15.5.9: it is the client's body that is missing.
		x.wantClose = true
		e.clientFailed(c, stopped)
		e.answer(c, 408)
	case !overdue && (x.done || x.expects):
		e.attemptFailed(c, metrics.ResponseTimeout, metrics.RetryTimeout, 504)
	default:
		e.failed(c, idle)
		e.answer(c, 504)
	}
}

// tryOver reports whether the time for the current attempt has passed.
func (e *Engine) tryOver(c *Conn) bool {
	x := c.x
	if !e.awaitsHead(c) {
		return false
	}
	ends := x.tryEnds()
	return ends > 0 && e.now >= ends
}

// awaitsHead reports whether nothing is missing but the head of the response.
func (e *Engine) awaitsHead(c *Conn) bool {
	x := c.x
	return c.peer != nil && c.peer.state == waiting && (x.done || x.expects) && !x.responded
}

// arm sets the deadline of an exchange or tunnel for what it waits for now.
func (e *Engine) arm(c *Conn) {
	if c.state != exchange && c.state != tunnel {
		return
	}
	x := c.x
	deadline := int64(0)
	switch {
	case x.place != nil:
		deadline = x.place.until
	case x.pausing():
		deadline = x.again.resume
	case c.peer == nil:
		// The metrics page is being rendered; it ends by itself.
		deadline = e.now + int64(lingerTime)
	case c.peer.state == dialing:
		// The driver watches the time to connect.
	case e.awaitsHead(c):
		c.mark = e.waitsFor(c)
		deadline = e.now + int64(x.endpoint.ResponseTimeout)
		if ends := x.tryEnds(); ends > 0 {
			deadline = min(deadline, ends)
		}
	default:
		c.mark = e.waitsFor(c)
		deadline = e.now + int64(x.endpoint.IdleTimeout)
	}
	if x.until > 0 && (deadline == 0 || x.until < deadline) {
		deadline = x.until
	}
	e.d.After(c, deadline)
}

// waitsFor returns what is queued towards both sides of an exchange.
func (e *Engine) waitsFor(c *Conn) int {
	n := e.d.Queued(c)
	if c.peer != nil {
		n += e.d.Queued(c.peer)
	}
	return n
}

// idleTimeout closes a client connection that has been between two requests for
// too long. While the client still reads its last response it is not idle.
func (e *Engine) idleTimeout(c *Conn) {
	if e.progress(c) {
		e.rest(c)
		return
	}
	c.abort = e.d.Queued(c) > 0
	e.closeNow(c)
}

// rest makes c wait for its next request.
func (e *Engine) rest(c *Conn) {
	c.rested, c.mark = e.now, e.d.Queued(c)
	t := e.live.Load()
	if t == nil {
		return // the first request is answered 503 at once
	}
	e.d.After(c, e.now+int64(t.Limits.IdleTimeout))
}

// begin counts a request; endpoint is nil when none takes it. A head that never
// became a request counts as well: what the client was answered must show.
func (e *Engine) begin(c *Conn, endpoint *table.Endpoint) {
	x := c.x
	x.endpoint, x.counters = endpoint, e.none
	if endpoint != nil {
		x.counters = endpoint.Metrics
		if endpoint.RequestTimeout > 0 {
			x.until = x.started + int64(endpoint.RequestTimeout)
		}
	}
	x.counters.Begin(e.shard)
}

// refuse answers something that is no request. The connection ends: where the
// next message would start is not known (RFC 9112 section 9.3).
func (e *Engine) refuse(c *Conn, status int) {
	e.beginRefused(c)
	e.answer(c, status)
}

// headTimeout answers a request whose head does not come in time.
func (e *Engine) headTimeout(c *Conn) {
	e.beginRefused(c)
	e.clientFailed(c, metrics.HeadTimeout)
	e.answer(c, 408)
}

// beginRefused counts what is no request.
func (e *Engine) beginRefused(c *Conn) {
	c.scan = http1.Scan{}
	e.become(c, exchange)
	x := e.newRequest(c)
	x.in, x.minor, x.wantClose = uint64(len(c.in)-c.off), 1, true
	if t := e.live.Load(); t != nil {
		e.note(c, t, nil)
	}
	e.begin(c, nil)
}
