//go:build unix

package portable

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"reverseproxy/dataplane/internal/loop/wheel"
	"reverseproxy/dataplane/internal/proxy"
)

// conn is a connection of this driver.
type conn struct {
	proxy.Conn

	loop   *eventLoop
	origin *proxy.Origin // of a client connection
	remote string
	cancel context.CancelFunc // of the dial

	// sock and raw are set before there is a reader and not changed. sock is nil
	// while dialling.
	sock *net.TCPConn
	raw  syscall.RawConn

	// Guarded by loop.mu.
	timer      wheel.Timer[conn]
	out        []byte // to be written
	marked     bool   // is in loop.pending
	busy       bool   // one goroutine writes
	broken     bool   // writing has failed
	shut       bool   // FIN follows the output
	shutDone   bool
	closed     bool
	reset      bool // close with a reset
	released   bool // the socket is being closed
	readerDone bool
	parked     bool // the reader waits for wakeup

	// Written under loop.mu; read by the reader without.
	paused atomic.Bool
	// inHand is set by the reader before it reads and unset when the engine has
	// got the bytes: they are not in the socket any more, and not known yet.
	inHand atomic.Bool
	// unsent is the part of writing that is not written yet.
	unsent atomic.Int64
	wakeup chan struct{}

	// Belong to the goroutine that set busy.
	writing  []byte
	written  int
	wait     bool // until the socket takes more
	writeErr error
	onWrite  func(fd uintptr) bool

	// Belong to the reader.
	buf     *[proxy.ReadSize]byte
	n       int
	readErr error
	onRead  func(fd uintptr) bool
}

// readBuffers holds read buffers, of any loop: a reader has one only from the
// moment there is something to read until the engine has seen it.
var readBuffers = sync.Pool{New: func() any { return new([proxy.ReadSize]byte) }}

var (
	errPaused = errors.New("paused")
	errReset  = errors.New("reset while paused")
)

func newConn(l *eventLoop) *conn {
	c := &conn{loop: l, wakeup: make(chan struct{}, 1)}
	c.Conn.Handle = c
	c.timer.Owner = c
	c.onRead, c.onWrite = c.readOnce, c.writeOnce
	return c
}

// attach gives c its socket. It fails when the socket is closed already.
func (c *conn) attach(sock *net.TCPConn) error {
	raw, err := sock.SyscallConn()
	if err != nil {
		return err
	}
	c.sock, c.raw = sock, raw
	return nil
}

// close closes c as soon as the mutex, which must be held, is let go. What is
// queued is dropped.
func (c *conn) close(reset bool) {
	if c.closed {
		return
	}
	l := c.loop
	c.closed, c.reset = true, reset
	c.out = nil
	delete(l.conns, c)
	if c.origin != nil {
		l.server.Gone(c.origin)
	}
	l.wheel.Drop(&c.timer)
	if c.cancel != nil {
		c.cancel()
	}
	c.wakeReader()
	if c.sock == nil {
		return // the goroutine that dials finds out
	}
	if c.busy {
		// The goroutine that writes holds on to it; it must not hold on for long.
		c.released = true
		l.server.goroutines.Go(c.release)
		return
	}
	l.mark(c)
}

// release closes the socket, which ends whatever waits for it.
func (c *conn) release() {
	if c.reset {
		_ = c.sock.SetLinger(0)
	}
	_ = c.sock.Close()
}

func (c *conn) closeWrite() { _ = c.sock.CloseWrite() }

func (c *conn) wakeReader() {
	if c.parked {
		c.parked = false
		c.wakeup <- struct{}{}
	}
}

// serve reads from a connection and tells its engine, until it ends.
func (c *conn) serve() {
	for c.readAndTell() {
	}
}

func (c *conn) readAndTell() bool {
	l := c.loop
	err := c.raw.Read(c.onRead)
	if err == nil {
		err = c.readErr
	}
	buf, n := c.buf, c.n
	c.buf, c.n, c.readErr = nil, 0, nil

	l.mu.Lock()
	defer l.mu.Unlock()
	for !c.closed && c.paused.Load() && (n > 0 || err == errPaused || err == io.EOF) {
		c.parked = true
		l.unlocked(c.park)
		if n == 0 && err == errPaused {
			return !c.closed
		}
	}
	if c.closed {
		c.readerDone = true
		if buf != nil {
			readBuffers.Put(buf)
		}
		return false
	}
	if n > 0 {
		l.call(received, c, buf[:n], nil)
		c.inHand.Store(false)
		readBuffers.Put(buf)
		l.settle()
		return true
	}
	if err == errPaused {
		return true
	}
	c.readerDone = true
	if err == io.EOF {
		// The operating system tells of a reset once. If a write was told, what
		// looks like the peer's FIN is that reset.
		err = nil
		if c.broken {
			err = c.writeErr
		}
	}
	l.tell(ended, c, nil, err)
	return false
}

// park waits until the connection is resumed or closed.
func (c *conn) park() { <-c.wakeup }

// readOnce reads what there is. It returns false to be called again when there is
// something.
func (c *conn) readOnce(fd uintptr) bool {
	if c.paused.Load() {
		c.readErr = errPaused
		return true
	}
	buf := readBuffers.Get().(*[proxy.ReadSize]byte)
	c.inHand.Store(true)
	n, err := ignoringEINTR(syscall.Read, int(fd), buf[:])
	if n > 0 {
		c.buf, c.n = buf, n
		return true
	}
	readBuffers.Put(buf)
	switch err {
	case nil:
		c.readErr = io.EOF
	case syscall.EAGAIN:
		c.inHand.Store(false)
		return false
	default:
		c.readErr = os.NewSyscallError("read", err)
	}
	return true
}

// failed reports whether the connection is broken. It does not look at what may be
// left to read.
func (c *conn) failed() bool {
	failed := false
	_ = c.raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(p, 0)
		failed = n > 0 && err == nil && p[0].Revents&unix.POLLERR != 0
	})
	return failed
}

// writeSome writes as much as the operating system takes now.
func (c *conn) writeSome() {
	c.wait = false
	c.write()
}

// writeRest writes what writeSome has left, however long that takes.
func (c *conn) writeRest() {
	c.wait = true
	c.write()
	l := c.loop
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wrote(c)
	l.mark(c)
	l.settle()
}

func (c *conn) write() {
	if err := c.raw.Write(c.onWrite); err != nil {
		c.writeErr = err
	}
}

func (c *conn) writeOnce(fd uintptr) bool {
	for c.written < len(c.writing) {
		n, err := ignoringEINTR(syscall.Write, int(fd), c.writing[c.written:])
		if err == syscall.EAGAIN {
			return !c.wait
		}
		if err != nil {
			c.writeErr = os.NewSyscallError("write", err)
			return true
		}
		c.written += n
		c.unsent.Add(int64(-n))
	}
	return true
}

func ignoringEINTR(f func(int, []byte) (int, error), fd int, p []byte) (int, error) {
	for {
		n, err := f(fd, p)
		if err != syscall.EINTR {
			return n, err
		}
	}
}

// dialAndRead connects to a backend and becomes the reader of the connection.
func (c *conn) dialAndRead(ctx context.Context, addr string) {
	defer c.cancel()
	if c.dial(ctx, addr) {
		c.serve()
	}
}

func (c *conn) dial(ctx context.Context, addr string) bool {
	l := c.loop
	dialer := net.Dialer{Resolver: l.server.Resolver, KeepAlive: -1} // sessions have deadlines of their own
	sock, err := dialer.DialContext(ctx, "tcp", addr)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil && !c.closed {
		err = c.attach(sock.(*net.TCPConn))
	}
	switch {
	case c.closed:
		if sock != nil {
			l.unlocked(func() { _ = sock.Close() })
		}
		return false
	case err != nil:
		c.closed = true
		delete(l.conns, c)
		l.tell(dialFailed, c, nil, err)
		return false
	}
	l.mark(c)
	l.tell(connected, c, nil, nil)
	return !c.closed
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// readable reports whether bytes, or the end, of the connection have come that
// the engine has not seen yet. loop.mu must be held. The socket is looked at
// first: what has left it since is in the reader's hand.
func (c *conn) readable() bool {
	waiting := false
	_ = c.raw.Control(func(fd uintptr) {
		var b [1]byte
		_, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		waiting = err == nil
	})
	return waiting || c.inHand.Load()
}
