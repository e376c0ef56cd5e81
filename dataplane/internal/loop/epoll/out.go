//go:build linux

package epoll

const (
	outBytes    = 4 << 10   // of a new output queue
	maxOutBytes = 256 << 10 // larger ones are left to the garbage collector
	maxFree     = 64        // of queues kept for reuse
)

// out is what is to be sent to a connection and could not be yet: bytes[sent:],
// which are some. Most connections have none, and do not carry one with them.
type out struct {
	bytes []byte
	sent  int
}

// rest returns what is still to be sent.
func (o *out) rest() []byte { return o.bytes[o.sent:] }

// add puts p behind what waits.
func (o *out) add(p []byte) {
	if o.sent > len(o.bytes)/2 {
		// A queue may never run empty: it must not grow by what has been sent.
		o.bytes, o.sent = o.bytes[:copy(o.bytes, o.rest())], 0
	}
	o.bytes = append(o.bytes, p...)
}

// queue keeps what the operating system did not take.
func (l *eventLoop) queue(c *conn, p []byte) {
	if len(p) == 0 {
		return
	}
	if c.out == nil {
		c.out = l.newOut()
	}
	c.out.add(p)
}

// newOut returns an empty queue.
func (l *eventLoop) newOut() *out {
	if n := len(l.outs); n > 0 {
		o := l.outs[n-1]
		l.outs = l.outs[:n-1]
		return o
	}
	return &out{bytes: make([]byte, 0, outBytes)}
}

// dropOut takes the queue of c away, with what is in it.
func (l *eventLoop) dropOut(c *conn) {
	o := c.out
	c.out = nil
	if o != nil && cap(o.bytes) <= maxOutBytes && len(l.outs) < maxFree {
		o.bytes, o.sent = o.bytes[:0], 0
		l.outs = append(l.outs, o)
	}
}
