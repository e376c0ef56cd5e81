//go:build linux

package epoll

import "syscall"

const (
	// busyEvents is how many must wait to be worked through for pieces to be held: a loop
	// that has less to do sends at once.
	busyEvents = 8
	// maxHeld is how many pieces are held at most, and longestHeld how long one may be.
	maxHeld     = 32
	longestHeld = 4 << 10
)

// held is what is sent soon, before the loop waits again at the latest: short pieces,
// one of a connection at most. To wake a process on another processor is a good part
// of what it costs to send something short. When pieces are sent one right after the
// other, the first wakes whoever they are for, and the others find him awake; with other
// work in between, he has often gone to sleep again.
type held struct {
	bytes  []byte
	pieces []piece
	busy   bool // whether anything is to be held
}

// piece is what lies in held.bytes before end and behind the piece before it.
type piece struct {
	conn *conn // nil: it has been sent
	end  int
}

// hold keeps p to be sent to c, which has nothing queued, and reports whether it does.
func (l *eventLoop) hold(c *conn, p []byte) bool {
	h := &l.held
	if !h.busy || len(p) > longestHeld {
		return false
	}
	if len(h.pieces) == maxHeld {
		l.flush()
	}
	h.bytes = append(h.bytes, p...)
	h.pieces = append(h.pieces, piece{c, len(h.bytes)})
	c.piece = uint8(len(h.pieces))
	return true
}

// flush sends everything that is held.
func (l *eventLoop) flush() {
	h := &l.held
	for i := range h.pieces {
		if c := h.pieces[i].conn; c != nil {
			l.release(c)
		}
	}
	h.bytes, h.pieces = h.bytes[:0], h.pieces[:0]
}

// release sends what is held for c, if something is: whatever is to happen to c next
// comes behind it.
func (l *eventLoop) release(c *conn) {
	if c.piece == 0 {
		return
	}
	pieces, i, begin := l.held.pieces, int(c.piece)-1, 0
	if i > 0 {
		begin = pieces[i-1].end
	}
	p := l.held.bytes[begin:pieces[i].end]
	pieces[i].conn, c.piece = nil, 0
	n, errno := send(c.fd, p)
	if errno != 0 && errno != syscall.EAGAIN {
		l.broke(c, errno)
		return
	}
	l.queue(c, p[max(n, 0):])
}
