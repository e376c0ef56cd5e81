package proxy

import (
	"time"

	"reverseproxy/dataplane/internal/backend"
	"reverseproxy/dataplane/internal/table"
)

const (
	// maxResting is how many idle connections are kept per backend and engine.
	maxResting = 1024
	// unsafeRest is how long a connection may have rested to be given a request
	// that cannot be sent again. Backends close what rests, many of them after a
	// few seconds; the request that crosses that close is lost (RFC 9112 section
	// 9.3.1). A connection that has just been used is not about to be closed.
	unsafeRest = time.Second
	// mistrust is how long such requests take no connection that was used before
	// after the backend has shown that this does not hold for it: it closed one
	// that had not rested for unsafeRest.
	mistrust = time.Minute
)

// idleList holds the idle connections to one backend. The one that was used last
// is taken first: the kernel has its state at hand, the backend is the least
// likely to be about to close it, and the surplus grows old and goes.
type idleList struct {
	newest, oldest *Conn
	n              int
	mistrusted     int64 // until when; see mistrust
}

// takeIdle returns an idle connection to s, ready for a request, or nil.
func (e *Engine) takeIdle(s *backend.State, replay bool) *Conn {
	l := e.idle[s]
	if l == nil {
		return nil
	}
	b := l.newest
	if b != nil && b == e.receiving {
		b = b.next
	}
	if b == nil {
		return nil
	}
	if !replay && (e.now-b.rested > int64(unsafeRest) || e.now < l.mistrusted) {
		return nil
	}
	l.remove(b)
	b.state = waiting
	return b
}

// putIdle keeps a connection for another request.
func (e *Engine) putIdle(b *Conn, limit time.Duration) {
	l := e.idle[b.backend]
	if l == nil {
		l = &idleList{}
		e.idle[b.backend] = l
	}
	if l.n >= maxResting {
		e.retire(l.oldest)
		l = e.idle[b.backend]
	}
	b.state, b.rested = resting, e.now
	b.next, b.prev = l.newest, nil
	if l.newest != nil {
		l.newest.prev = b
	} else {
		l.oldest = b
	}
	l.newest = b
	l.n++
	e.d.After(b, e.now+int64(limit))
}

// closedEarly takes note that a backend has closed b, which was idle or had been,
// without having said so.
func (e *Engine) closedEarly(b *Conn) {
	if l := e.idle[b.backend]; l != nil && b.rested > 0 && e.now-b.rested <= int64(unsafeRest) {
		l.mistrusted = e.now + int64(mistrust)
	}
}

// retire closes an idle connection.
func (e *Engine) retire(b *Conn) {
	l := e.idle[b.backend]
	l.remove(b)
	e.close(b)
}

// forgetIdle frees lists that have become empty. Lists of backends in use stay,
// so it is called when the route table has changed.
func (e *Engine) forgetIdle(t *table.Table) {
	if t.Version == e.swept {
		return
	}
	e.swept = t.Version
	for s, l := range e.idle {
		if l.n == 0 && l.mistrusted < e.now {
			delete(e.idle, s)
		}
	}
}

func (l *idleList) remove(b *Conn) {
	if b.prev != nil {
		b.prev.next = b.next
	} else {
		l.newest = b.next
	}
	if b.next != nil {
		b.next.prev = b.prev
	} else {
		l.oldest = b.prev
	}
	b.next, b.prev = nil, nil
	l.n--
}

// dial opens a new connection for the request of c.
func (e *Engine) dial(c *Conn) *Conn {
	x := c.x
	s, limit := x.member.Health.State, x.endpoint.ConnectTimeout
	if r := x.endpoint.Retry; r != nil && r.PerTry > 0 {
		limit = min(limit, r.PerTry)
	}
	b := e.d.Dial(s.Addr(), limit)
	b.state, b.backend = dialing, s
	b.peer, c.peer = c, b
	return b
}
