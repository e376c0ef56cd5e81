package proxy

import (
	"time"

	"reverseproxy/dataplane/internal/metrics"
	"reverseproxy/dataplane/internal/table"
)

// admit forwards the request in e.req, or has its endpoint answer by itself, unless
// that is over a limit of the endpoint.
func (e *Engine) admit(c *Conn, t *table.Table, body []byte) {
	l := c.x.endpoint.Admission
	if l != nil && l.Rate != nil {
		if wait := e.early(c); wait > 0 {
			e.overLimit(c, 429, metrics.RateLimit, wait)
			return
		}
	}
	if a := c.x.endpoint.Answer; a != nil {
		e.answerItself(c, a)
		return
	}
	e.forward(c, t, body)
}

// early returns for how long the request in e.req comes too early for the rate of its
// endpoint; 0: it does not. Requests that do not have the header field that they are
// counted by are counted together.
func (e *Engine) early(c *Conn) time.Duration {
	l := c.x.endpoint.Admission
	switch {
	case l.ByClient:
		return l.Rate.TakeOf(l.Rate.Hash(c.clientAddress()), e.now)
	case l.ByHeader != "":
		if value, ok := e.req.Value(l.ByHeader); ok {
			return l.Rate.TakeOf(l.Rate.Hash(value.Of(e.req.Raw)), e.now)
		}
	}
	return l.Rate.Take(e.now)
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
