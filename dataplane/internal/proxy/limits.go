package proxy

import (
	"time"

	"reverseproxy/dataplane/internal/metrics"
	"reverseproxy/dataplane/internal/table"
)

// tryAgain is when a client may try again for which there was no room: nobody knows when
// there will be.
const tryAgain = time.Second

// admit forwards the request in e.req, or has its endpoint answer by itself, unless that
// is over a limit of the endpoint: then it has to wait, or is refused.
func (e *Engine) admit(c *Conn, t *table.Table, body []byte) {
	x := c.x
	a := x.endpoint.Admission
	if (a != nil || x.gate != nil) && !e.letIn(c, t, a, body) {
		return
	}
	if x.endpoint.Answer != nil {
		e.answerItself(c, x.endpoint.Answer)
		return
	}
	e.forward(c, t, body)
}

// letIn asks the limits of an endpoint, nil: it has none. What a request that is routed
// again has been given before is not asked for again.
func (e *Engine) letIn(c *Conn, t *table.Table, a *table.Admission, body []byte) bool {
	x := c.x
	if a == nil {
		e.leave(x)
		return true
	}
	if a.Rate != nil && !x.rated {
		x.rated = true
		if wait := e.early(c, a); wait > 0 {
			e.overLimit(c, 429, metrics.RateLimit, wait)
			return false
		}
	}
	if a.Gate != x.gate {
		e.leave(x)
		if x.endpoint.Answer != nil {
			return true // answered at once, so that it is never in flight
		}
		if a.Gate != nil && !a.Gate.Enter() {
			if e.aim(c) {
				e.wait(c, t, body, metrics.MaxRequests)
			}
			return false
		}
		x.gate = a.Gate
	}
	return true
}

// leave gives up the request's place among those in flight of its endpoint.
func (e *Engine) leave(x *request) {
	if x.gate != nil {
		x.gate.Leave()
		x.gate = nil
	}
}

// early returns for how long the request in e.req comes too early for the rate of its
// endpoint; 0: it does not. Requests that do not have the header field that they are
// counted by are counted together.
func (e *Engine) early(c *Conn, a *table.Admission) time.Duration {
	switch {
	case a.ByClient:
		return a.Rate.TakeOf(a.Rate.Hash(c.clientAddress()), e.now)
	case a.ByHeader != "":
		if value, ok := e.req.Value(a.ByHeader); ok {
			return a.Rate.TakeOf(a.Rate.Hash(value.Of(e.req.Raw)), e.now)
		}
	}
	return a.Rate.Take(e.now)
}

// overLimit refuses a request that has an endpoint. The client may try again after
// some time, which it is told in whole seconds.
func (e *Engine) overLimit(c *Conn, status int, why metrics.Refusal, after time.Duration) {
	x := c.x
	x.endpoint.Metrics.Refused(why)
	x.note.failed(why.String())
	x.retryAfter = int64((after + time.Second - 1) / time.Second)
	e.answer(c, status)
}
