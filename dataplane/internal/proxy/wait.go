package proxy

import (
	"reverseproxy/dataplane/internal/limit"
	"reverseproxy/dataplane/internal/metrics"
	"reverseproxy/dataplane/internal/table"
)

// place is where a request waits in line: for others of its endpoint to end, or for a backend that
// is not full. It belongs to its loop, but for what take uses.
type place struct {
	limit.Waiter
	gate    *limit.Gate
	metrics *metrics.Endpoint
	until   int64  // when it has waited for too long
	version string // of the route table by which it is routed

	// For take; the owner looks again when the request has been let in.
	live   *table.Live
	pool   *table.Pool
	choice table.Choice
	member *table.Member // that has been taken; nil: none
}

// take takes a backend for the request. One that nobody may get is let in as well, to be
// told so, and one whose pool has been replaced, to be routed by the table in force.
func (w *place) take() bool {
	if now := w.live.Load(); now.Version != w.version && !now.Has(w.pool) {
		return true
	}
	for {
		m := w.pool.Pick(&w.choice)
		if m == nil {
			return !w.pool.Full()
		}
		if m.Take() {
			w.member = m
			return true
		}
	}
}

// wait puts the request in e.req, which is routed by t and has been aimed, in line. If
// there is no line it is refused; full says what there is no room in.
func (e *Engine) wait(c *Conn, t *table.Table, body []byte, full metrics.Refusal) {
	x := c.x
	e.leave(x)
	a := x.endpoint.Admission
	if a.Patience == 0 {
		e.overLimit(c, 503, full, tryAgain)
		return
	}
	if x.waits == 0 {
		x.waits = e.now // not in line again, because there is another table
	}
	w := &place{
		gate: a.Gate, metrics: x.endpoint.Metrics, until: x.waits + int64(a.Patience), version: t.Version,
		live: e.live, pool: x.endpoint.Pool, choice: x.choice,
	}
	w.Call = func() { e.d.Post(c, func() { e.called(c, w) }) }
	if w.pool.Limited() {
		w.Take, w.Source = w.take, w.pool
	}
	switch a.Gate.Wait(&w.Waiter) {
	case limit.In:
		e.enter(c, w, body)
	case limit.Full:
		e.overLimit(c, 503, metrics.QueueFull, tryAgain)
	case limit.Waiting:
		x.held, x.head = append(append(e.buffer(), e.req.Raw...), body...), int32(len(e.req.Raw))
		w.metrics.Queued(1)
		x.place = w
		e.arm(c)
	}
}

// called is told when w has been let in.
func (e *Engine) called(c *Conn, w *place) {
	x := c.x
	if x == nil || x.place != w {
		return // it did not wait any longer, and has given back what it was given
	}
	w.metrics.Queued(-1)
	x.place = nil
	body, held := e.reread(c), x.held
	x.held = nil
	if !x.done {
		e.resume(c)
	}
	e.enter(c, w, body)
	e.putBuffer(held)
}

// enter goes on with the request in e.req, which has been let in, with what it has been
// given.
func (e *Engine) enter(c *Conn, w *place, body []byte) {
	x := c.x
	x.gate, x.member = w.gate, w.member
	if x.member != nil {
		x.member.Metrics.Begin(e.shard)
	}
	if now := e.live.Load(); now.Version != w.version {
		e.routeAgain(c, now, body)
	} else {
		e.give(c, now, body)
	}
}

// holdInLine keeps what comes of the body of a request that waits. A client that sends
// more than a little has to wait, too.
func (e *Engine) holdInLine(c *Conn, p []byte) {
	x := c.x
	x.held = append(x.held, p...)
	if len(x.held) > maxHeld && !x.done {
		e.pause(c)
	}
}

// stopWaiting takes a request out of line.
func (e *Engine) stopWaiting(x *request) {
	w := x.place
	x.place = nil
	w.metrics.Queued(-1)
	if w.gate.Cancel(&w.Waiter) {
		return
	}
	// It has been let in and was not told yet.
	if w.member != nil {
		w.member.Health.State.End()
	}
	w.gate.Leave()
}
