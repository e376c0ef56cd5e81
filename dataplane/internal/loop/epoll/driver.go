//go:build linux

package epoll

import (
	"syscall"

	"golang.org/x/sys/unix"

	"reverseproxy/dataplane/internal/proxy"
)

// driverOf is an eventLoop as its engine sees it.
type driverOf eventLoop

func (d *driverOf) loop() *eventLoop { return (*eventLoop)(d) }

// Send implements proxy.Driver.
func (d *driverOf) Send(pc *proxy.Conn, p []byte) {
	c := pc.Handle.(*conn)
	d.loop().release(c)
	if c.closed || c.broken != 0 || c.shut {
		return
	}
	if c.unwatched {
		d.loop().look(c) // if it is not closed now, it will be read from again
	}
	if c.out == nil && !c.connecting {
		if d.loop().hold(c, p) {
			return
		}
		n, errno := send(c.fd, p)
		if errno != 0 && errno != syscall.EAGAIN {
			d.loop().broke(c, errno)
			return
		}
		p = p[max(n, 0):]
	}
	d.loop().queue(c, p)
}

// SendBoth implements proxy.Driver.
func (d *driverOf) SendBoth(pc *proxy.Conn, head, body []byte) {
	c := pc.Handle.(*conn)
	d.loop().release(c)
	if c.closed || c.broken != 0 || c.shut {
		return
	}
	if c.unwatched {
		d.loop().look(c)
	}
	if c.out == nil && !c.connecting {
		n, errno := sendBoth(c.fd, head, body)
		if errno != 0 && errno != syscall.EAGAIN {
			d.loop().broke(c, errno)
			return
		}
		n = max(n, 0)
		k := min(n, len(head))
		head, body = head[k:], body[n-k:]
	}
	d.loop().queue(c, head)
	d.loop().queue(c, body)
}

// Queued implements proxy.Driver.
func (d *driverOf) Queued(pc *proxy.Conn) int {
	c := pc.Handle.(*conn)
	n := 0
	if c.out != nil {
		n = len(c.out.rest())
	}
	if c.pipe != nil && c.pipe.to == c {
		n += c.pipe.held
	}
	return n
}

// Flush implements proxy.Driver.
func (d *driverOf) Flush(pc *proxy.Conn) { d.loop().release(pc.Handle.(*conn)) }

// CloseWrite implements proxy.Driver.
func (d *driverOf) CloseWrite(pc *proxy.Conn) {
	c := pc.Handle.(*conn)
	if c.closed || c.shut {
		return
	}
	d.loop().release(c)
	c.shut = true
	if c.out == nil && !c.connecting {
		shutdownWrite(c.fd)
	}
}

// Close implements proxy.Driver.
func (d *driverOf) Close(pc *proxy.Conn) { d.close(pc.Handle.(*conn)) }

// Abort implements proxy.Driver.
func (d *driverOf) Abort(pc *proxy.Conn) {
	c := pc.Handle.(*conn)
	if !c.closed && c.fd >= 0 {
		_ = unix.SetsockoptLinger(int(c.fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	d.close(c)
}

// close closes c. Its conn is used again when nothing can name it any more.
func (d *driverOf) close(c *conn) {
	if c.closed {
		return
	}
	l := d.loop()
	l.release(c)
	c.closed = true
	if c.pipe != nil {
		l.endPipe(c.pipe)
	}
	l.wheel.Drop(&c.timer)
	l.dropOut(c)
	if cancel := l.dials[c]; c.connecting && cancel != nil {
		delete(l.dials, c)
		cancel()
	}
	if c.fd >= 0 {
		l.conns[c.fd] = nil
		closeFD(c.fd)
	}
	if o := c.Origin(); o != nil {
		l.load.Add(-1)
		l.loops.Gone(o)
	}
	l.closed = append(l.closed, c)
}

// Pause implements proxy.Driver.
func (d *driverOf) Pause(pc *proxy.Conn) {
	c := pc.Handle.(*conn)
	c.paused = true
	if c.broken != 0 {
		d.loop().look(c) // reading would have told
	}
}

// Resume implements proxy.Driver.
func (d *driverOf) Resume(pc *proxy.Conn) {
	c := pc.Handle.(*conn)
	c.paused = false
	if c.unread || c.unwatched || c.broken != 0 {
		d.loop().look(c)
	}
}

// After implements proxy.Driver.
func (d *driverOf) After(pc *proxy.Conn, deadline int64) {
	c := pc.Handle.(*conn)
	if !c.closed {
		d.wheel.Set(&c.timer, deadline, d.now)
	}
}

// Go implements proxy.Driver.
func (d *driverOf) Go(work, done func()) {
	l := d.loop()
	l.loops.goroutines.Go(func() {
		defer l.post(done)
		defer func() {
			if r := recover(); r != nil {
				l.panicked(r)
			}
		}()
		work()
	})
}

// Post implements proxy.Driver.
func (d *driverOf) Post(pc *proxy.Conn, f func()) {
	l := d.loop()
	l.post(func() {
		if c, ok := pc.Handle.(*conn); ok && !c.closed {
			l.current = c
			f()
		}
	})
}
