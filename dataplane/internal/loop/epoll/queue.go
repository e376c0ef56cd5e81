//go:build linux

package epoll

// queue holds connections that wait for their turn, the one that has waited longest
// first. A connection is in it once, whatever happens to it meanwhile.
type queue struct {
	conns []*conn
	next  int
}

// len returns how many there are, closed ones included.
func (q *queue) len() int { return len(q.conns) - q.next }

// add takes note of events of c, which are some.
func (q *queue) add(c *conn, events uint32) {
	if c.events == 0 {
		if q.next > len(q.conns)/2 {
			// It may never run empty: it must not grow by what has been taken.
			n := copy(q.conns, q.conns[q.next:])
			clear(q.conns[n:])
			q.conns, q.next = q.conns[:n], 0
		}
		q.conns = append(q.conns, c)
	}
	c.events |= events
}

// take returns the next connection that is still open, with its events, or nil.
func (q *queue) take() (*conn, uint32) {
	for q.len() > 0 {
		c, events := q.conns[q.next], q.conns[q.next].events
		q.next++
		c.events = 0
		if !c.closed {
			return c, events
		}
	}
	return nil, 0
}
