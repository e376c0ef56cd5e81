package proxy

import (
	"math/bits"
	"time"

	"reverseproxy/dataplane/internal/http1"
	"reverseproxy/dataplane/internal/metrics"
	"reverseproxy/dataplane/internal/table"
)

// firstPause is how long a request waits at most before it is sent again to a member
// that has failed it already, because no other is left; it doubles each time, up to
// longestPause. It waits for at least half of that: requests that have failed together
// do not come back together. Another member is tried at once: nothing is known against
// it.
const firstPause, longestPause = 25 * time.Millisecond, 200 * time.Millisecond

// again is the state of a request that has been sent more than once.
type again struct {
	attempts int // so far
	tried    table.Tried
	pauses   int   // so far
	resume   int64 // when the pause before the next attempt ends; 0: there is none
}

// attemptFailed handles a backend that has failed a request before its response:
// there is another attempt, or the client is told so.
func (e *Engine) attemptFailed(c *Conn, why metrics.Reason, kind metrics.RetryReason, status int) {
	e.failed(c, why)
	if to := e.nextMember(c, kind); to != nil {
		e.sendAgain(c, to)
		return
	}
	e.answer(c, status)
}

// discard drops the response whose head is in e.resp when another attempt takes
// its place, and reports whether it does. p is what came after the head.
func (e *Engine) discard(b *Conn, p []byte) bool {
	var kind metrics.RetryReason
	c, r := b.peer, &e.resp
	switch r.Status {
	case 502:
		kind = metrics.Retry502
	case 503:
		kind = metrics.Retry503
	case 504:
		kind = metrics.Retry504
	default:
		return false
	}
	to := e.nextMember(c, kind)
	if to == nil {
		return false
	}
	e.answered(c.x, r.Status)
	b.body.Start(r.Framing, r.Length)
	if n, bad := b.body.Advance(p); bad == nil && b.body.Done() && n == len(p) {
		// All of it is here, so that the connection can be used again.
		b.state, b.last = relaying, r.Close
	}
	e.sendAgain(c, to)
	return true
}

// nextMember returns who gets the request of c after a failure, nil when it is not
// to be sent again.
func (e *Engine) nextMember(c *Conn, kind metrics.RetryReason) *table.Member {
	x := c.x
	r := x.endpoint.Retry
	if r == nil || !r.On(kind) {
		return nil
	}
	if why, may := e.mayRepeat(c); !may {
		x.counters.RetrySkipped(e.shard, why)
		return nil
	}
	if x.again == nil {
		x.again = &again{attempts: 1}
		x.choice.Tried = &x.again.tried
	}
	x.again.tried.Add(x.member)
	to := e.pickAgain(x)
	if to == nil {
		x.counters.RetrySkipped(e.shard, metrics.SkippedBackend)
		return nil
	}
	// A backend that could not be reached has had no work, so a request that goes on to
	// one that can is no more than the one request that it was. The budget is for work
	// that is done twice, and for when nobody can be reached.
	free := kind == metrics.RetryConnectFailure && to.Health.State.Up()
	if !free && !r.Take(e.now, x.counters.Begun()) {
		to.End(e.shard)
		x.counters.RetrySkipped(e.shard, metrics.SkippedBudget)
		return nil
	}
	x.counters.Retry(e.shard, kind)
	return to
}

// pickAgain chooses another member and counts the request as in flight there. It
// goes by the table in force, and by the one after it if that has come meanwhile:
// since the request came, a backend may have been drained, and been found to have
// nothing in flight any more.
func (e *Engine) pickAgain(x *request) *table.Member {
	for {
		t := e.live.Load()
		endpoint := t.Endpoint(x.endpoint.Name)
		if endpoint == nil {
			return nil
		}
		to := endpoint.Pool.Pick(&x.choice)
		if to == nil {
			// The request itself is one of those that fill the member.
			if to = endpoint.Pool.Again(x.member); to == nil {
				return nil
			}
			to.Begin(e.shard)
		} else if !to.TryBegin(e.shard) {
			continue // it has become full in this moment
		}
		if e.live.Load() == t {
			return to
		}
		to.End(e.shard)
	}
}

// mayRepeat reports whether it is safe to send the request of c again, or why not.
// The client must not have been sent anything, which says x.out. Either the backend
// has got nothing, which is so when there was no connection, or the request is whole
// and of a method that means the same twice.
func (e *Engine) mayRepeat(c *Conn) (why metrics.RetrySkip, may bool) {
	x := c.x
	connected := c.peer != nil
	switch {
	case x.attempts() >= x.endpoint.Retry.Attempts:
		return metrics.SkippedAttempts, false
	case x.out > 0:
		return metrics.SkippedSent, false
	case connected && !idempotent(x.method):
		return metrics.SkippedMethod, false
	case x.held == nil, connected && !x.done:
		return metrics.SkippedBody, false
	}
	return 0, true
}

// sendAgain parts from the backend that has failed and sends the request to
// another one, or after a pause to the same.
func (e *Engine) sendAgain(c *Conn, to *table.Member) {
	x := c.x
	e.release(c)
	x.member.End(e.shard)
	x.member, x.chosen = to, e.now
	x.failed = false
	x.note.failed("")
	if x.again.tried.Has(to) {
		x.again.resume = e.now + e.nextPause(x)
		x.again.pauses++
		if !x.done {
			e.pause(c) // nobody could be given more of the body
		}
		e.arm(c)
		return
	}
	e.attempt(c)
}

// nextPause returns for how long x waits before its next attempt.
func (e *Engine) nextPause(x *request) int64 {
	least := uint64(min(firstPause<<x.again.pauses, longestPause) / 2)
	over, _ := bits.Mul64(e.random.Uint64(), least)
	return int64(least + over)
}

// endPause ends the pause before an attempt.
func (e *Engine) endPause(c *Conn) {
	c.x.again.resume, c.x.chosen = 0, e.now
	e.attempt(c)
}

// attempt sends the held request to the chosen member.
func (e *Engine) attempt(c *Conn) {
	c.x.again.attempts++
	if !c.x.done {
		e.resume(c) // the member before may have been behind
	}
	e.deliver(c, e.reread(c), true)
}

// pausing reports whether x waits for its next attempt.
func (x *request) pausing() bool { return x.again != nil && x.again.resume > 0 }

// attempts returns how many backends the request has been given to.
func (x *request) attempts() int {
	switch {
	case x.member == nil:
		return 0
	case x.again == nil:
		return 1
	}
	return x.again.attempts
}

// tryEnds returns when the time for the current attempt ends, 0 for never.
func (x *request) tryEnds() int64 {
	if r := x.endpoint.Retry; r != nil && r.PerTry > 0 {
		return x.asked + int64(r.PerTry)
	}
	return 0
}

// hold keeps more of the body of a request that may have to be sent again.
func (e *Engine) hold(x *request, body []byte) {
	if len(x.held)+len(body) > maxHeld {
		e.letGo(x)
		return
	}
	x.held = append(x.held, body...)
}

// letGo gives up what was kept of a request to be sent again.
func (e *Engine) letGo(x *request) {
	if x.held != nil {
		e.putBuffer(x.held)
		x.held = nil
	}
}

// reread parses the held request, so that e.req and e.query have it as they had
// when it came, and returns what came of its body. The head is made anew for each
// backend: much of it depends on that.
func (e *Engine) reread(c *Conn) (body []byte) {
	x := c.x
	var scan http1.Scan
	if n, _ := e.req.Parse(x.held[:x.head], &scan, http1.Limits{}); n != int(x.head) {
		panic("a request cannot be read a second time")
	}
	e.ask()
	x.endpoint.Rewrite(&e.query) // to what it was before
	return x.held[x.head:]
}

// replay sends the request of c again, on a new connection to the same backend.
// The old one was idle before, the backend has closed it, and nothing of a
// response was seen: by all appearances the request came too late to be read
// (RFC 9112 section 9.3.1). It stays the same request of the same backend, so
// there is no new turn of the round robin and nothing is counted. A new
// connection is not tried a second time.
func (e *Engine) replay(c *Conn) {
	e.release(c)
	e.deliver(c, e.reread(c), false)
	if c.x.endpoint.Retry == nil {
		e.letGo(c.x)
	}
}

// replayable reports whether that can be done when b has been closed.
func (e *Engine) replayable(b *Conn) bool {
	x := b.peer.x
	return b.state == waiting && b.rested > 0 && !x.seen && x.held != nil && x.done && idempotent(x.method)
}

// idempotent reports whether a request that is complete, so that nothing of it is
// gone, may be sent a second time (RFC 9110 section 9.2.2).
func idempotent(m http1.Method) bool {
	switch m {
	case http1.GET, http1.HEAD, http1.OPTIONS, http1.PUT, http1.DELETE:
		return true
	}
	return false
}
