//go:build unix

package portable

import (
	"context"
	"time"

	"reverseproxy/dataplane/internal/proxy"
)

// driverOf is an eventLoop as its engine sees it. All methods are called with the
// loop's mutex held.
type driverOf eventLoop

func (d *driverOf) loop() *eventLoop { return (*eventLoop)(d) }

// Send implements proxy.Driver.
func (d *driverOf) Send(pc *proxy.Conn, p []byte) {
	c := pc.Handle.(*conn)
	if c.closed || c.broken || c.shut {
		return
	}
	if c.out == nil {
		c.out = d.loop().outBuffer()
	}
	c.out = append(c.out, p...)
	d.loop().mark(c)
}

// SendBoth implements proxy.Driver.
func (d *driverOf) SendBoth(pc *proxy.Conn, head, body []byte) {
	d.Send(pc, head)
	d.Send(pc, body)
}

// Splice implements proxy.Driver.
func (d *driverOf) Splice(_, _ *proxy.Conn, _ int64) bool { return false }

// Queued implements proxy.Driver.
func (d *driverOf) Queued(pc *proxy.Conn) int {
	c := pc.Handle.(*conn)
	return len(c.out) + int(c.unsent.Load())
}

// Flush implements proxy.Driver. Nothing is kept.
func (d *driverOf) Flush(*proxy.Conn) {}

// Dial implements proxy.Driver.
func (d *driverOf) Dial(addr string, timeout time.Duration) *proxy.Conn {
	l := d.loop()
	c := newConn(l)
	ctx, cancel := context.WithTimeout(l.server.ctx, timeout)
	c.cancel = cancel
	l.conns[c] = struct{}{}
	l.server.goroutines.Go(func() { c.dialAndRead(ctx, addr) })
	return &c.Conn
}

// CloseWrite implements proxy.Driver.
func (d *driverOf) CloseWrite(pc *proxy.Conn) {
	c := pc.Handle.(*conn)
	c.shut = true
	d.loop().mark(c)
}

// Close implements proxy.Driver.
func (d *driverOf) Close(pc *proxy.Conn) { pc.Handle.(*conn).close(false) }

// Abort implements proxy.Driver.
func (d *driverOf) Abort(pc *proxy.Conn) { pc.Handle.(*conn).close(true) }

// Pause implements proxy.Driver.
func (d *driverOf) Pause(pc *proxy.Conn) { pc.Handle.(*conn).paused.Store(true) }

// Resume implements proxy.Driver.
func (d *driverOf) Resume(pc *proxy.Conn) {
	c := pc.Handle.(*conn)
	c.paused.Store(false)
	c.wakeReader()
}

// After implements proxy.Driver.
func (d *driverOf) After(pc *proxy.Conn, deadline int64) {
	c := pc.Handle.(*conn)
	if c.closed {
		return
	}
	sleeping, now := d.wheel.Empty(), int64(0)
	if sleeping {
		now = d.server.now()
	}
	d.wheel.Set(&c.timer, deadline, now)
	if sleeping && !d.wheel.Empty() {
		select {
		case d.wake <- struct{}{}:
		default:
		}
	}
}

// Go implements proxy.Driver.
func (d *driverOf) Go(work, done func()) {
	l := d.loop()
	l.server.goroutines.Go(func() {
		l.guard(work)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.engine.SetNow(l.server.now())
		l.guard(done)
		l.settle()
	})
}

// Post implements proxy.Driver. Whoever calls it may hold the mutex of another loop,
// so it must not wait for this one's.
func (d *driverOf) Post(pc *proxy.Conn, f func()) {
	l := d.loop()
	l.posts.Lock()
	defer l.posts.Unlock()
	l.posted = append(l.posted, post{pc, f})
	if !l.posting {
		l.posting = true
		l.server.goroutines.Go(l.runPosted)
	}
}

// post is a callback for a connection.
type post struct {
	conn *proxy.Conn
	f    func()
}

// runPosted runs what has been posted, and what is posted meanwhile.
func (l *eventLoop) runPosted() {
	for {
		l.posts.Lock()
		all := l.posted
		l.posted = nil
		l.posting = len(all) > 0
		l.posts.Unlock()
		if len(all) == 0 {
			return
		}
		l.mu.Lock()
		for _, p := range all {
			l.runPost(p)
			l.settle()
		}
		l.mu.Unlock()
	}
}

// runPost runs one; l.mu must be held.
func (l *eventLoop) runPost(p post) {
	c := p.conn.Handle.(*conn)
	if c.closed {
		return
	}
	defer l.survive(c)
	l.engine.SetNow(l.server.now())
	p.f()
}

// guard runs f; a panic in it is logged and counted.
func (l *eventLoop) guard(f func()) {
	defer l.survive(nil)
	f()
}
