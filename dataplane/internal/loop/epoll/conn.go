//go:build linux

package epoll

import (
	"errors"
	"syscall"
	"unsafe"

	"reverseproxy/dataplane/internal/loop/wheel"
	"reverseproxy/dataplane/internal/proxy"
)

// conn is a connection of this driver. It belongs to one loop.
type conn struct {
	proxy.Conn
	timer wheel.Timer[conn]

	fd         int32 // -1: none yet
	generation uint32

	out *out // nil when nothing waits to be sent

	pipe *pipe // through which bytes go from here or come here unseen

	// broken is why it cannot be written to, or could not be dialled.
	broken syscall.Errno

	connecting bool
	paused     bool // the engine does not want to be told
	unread     bool // there may be something to receive
	ending     bool // the peer has announced its end: it must be read up to there
	ended      bool // and that has been told
	shut       bool // FIN follows what is queued
	listed     bool // is in eventLoop.again
	unwatched  bool // is not registered with epoll yet
	closed     bool

	piece  uint8  // which of eventLoop.held is for it, from 1; 0: none
	events uint32 // for which it is in eventLoop.waiting
}

// Five cache lines, and a size that the allocator aligns to them. (What is larger gets 352
// bytes, and lies in six or seven.)
const _ = uint(5*64 - unsafe.Sizeof(conn{}))

var errReset = errors.New("reset while nobody was reading")

// newConn returns a connection that has a file descriptor, or -1.
func (l *eventLoop) newConn(fd int32) *conn {
	var c *conn
	if n := len(l.spare); n > 0 {
		c = l.spare[n-1]
		l.spare = l.spare[:n-1]
	} else {
		c = new(conn)
	}
	if l.generation++; l.generation == 0 {
		l.generation = 1
	}
	c.generation, c.Handle, c.timer.Owner = l.generation, c, c
	c.fd = -1
	if fd >= 0 {
		l.own(c, fd)
	}
	return c
}

// own gives c its file descriptor.
func (l *eventLoop) own(c *conn, fd int32) {
	c.fd = fd
	for int(fd) >= len(l.conns) {
		l.conns = append(l.conns, nil)
	}
	l.conns[fd] = c
}

// recycle makes closed connections ready to be used again.
func (l *eventLoop) recycle() {
	if len(l.closed) == 0 {
		return
	}
	waiting := l.closed[:0]
	for _, c := range l.closed {
		switch {
		case c.listed || c.events != 0:
			waiting = append(waiting, c)
		case len(l.spare) < maxConns:
			*c = conn{}
			l.spare = append(l.spare, c)
		}
	}
	clear(l.closed[len(waiting):])
	l.closed = waiting
}
