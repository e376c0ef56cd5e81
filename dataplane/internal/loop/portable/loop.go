//go:build unix

package portable

import (
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"reverseproxy/dataplane/internal/loop/wheel"
	"reverseproxy/dataplane/internal/proxy"
)

// eventLoop is one Engine with its connections. In this driver it is not a
// thread but a mutex: whoever has something to tell the engine takes it.
type eventLoop struct {
	server *loops
	log    *slog.Logger
	panics atomic.Uint64

	mu sync.Mutex
	// The rest is guarded by mu.
	engine  *proxy.Engine
	wheel   wheel.Wheel[conn]
	conns   map[*conn]struct{} // all that are not closed
	pending []*conn            // with something to be done outside the mutex
	free    [][]byte
	closed  bool
	// quiet is the moment since when a connection must have been idle for
	// closeIdle to close it.
	quiet int64

	wake chan struct{} // there is a deadline again

	posts sync.Mutex // may be taken with mu held; guards the following
	// posted are callbacks that are to be run, by a goroutine while posting.
	posted  []post
	posting bool
}

const (
	outBytes    = 4 << 10  // of a new output buffer
	maxOutBytes = 64 << 10 // larger ones are left to the garbage collector
	maxFree     = 256
)

func newEventLoop(s *loops, index int) *eventLoop {
	l := &eventLoop{
		server: s, log: s.Log, conns: map[*conn]struct{}{}, wake: make(chan struct{}, 1),
	}
	l.wheel.Init(s.now())
	l.engine = s.NewEngine(index, (*driverOf)(l))
	return l
}

// event is what an engine can be told.
type event uint8

const (
	accepted event = iota
	refused
	received
	ended
	connected
	dialFailed
	drained
	timedOut
	closeIdle
)

// tell calls the engine, and then does what it asked for. l.mu must be held; it
// is let go in between.
func (l *eventLoop) tell(ev event, c *conn, p []byte, err error) {
	l.call(ev, c, p, err)
	l.settle()
}

// call is the edge between bytes from the network and the rest of the process: a
// panic costs the connection, not the process.
func (l *eventLoop) call(ev event, c *conn, p []byte, err error) {
	defer l.survive(c)
	e := l.engine
	e.SetNow(l.server.now())
	switch ev {
	case accepted:
		e.Accept(&c.Conn, c.remote, c.origin)
	case refused:
		e.Refuse(&c.Conn, c.remote, c.origin)
	case received:
		e.Data(&c.Conn, p)
	case ended:
		e.EOF(&c.Conn, err)
	case connected:
		e.Connected(&c.Conn)
	case dialFailed:
		e.DialFailed(&c.Conn, isTimeout(err))
	case drained:
		e.Drained(&c.Conn)
	case timedOut:
		e.Timeout(&c.Conn)
	case closeIdle:
		e.CloseIdle(&c.Conn, l.quiet)
	}
}

func (l *eventLoop) survive(c *conn) {
	r := recover()
	if r == nil {
		return
	}
	l.panics.Add(1)
	l.log.Error("connection closed after a panic", "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
	if c != nil && !c.closed {
		l.engine.Abandon(&c.Conn)
	}
}

// settle does what has to be done without the mutex for the connections that
// callbacks have marked: write, shut down, close. l.mu must be held.
func (l *eventLoop) settle() {
	for len(l.pending) > 0 {
		last := len(l.pending) - 1
		c := l.pending[last]
		l.pending[last] = nil
		l.pending = l.pending[:last]
		c.marked = false
		l.attend(c)
	}
}

func (l *eventLoop) mark(c *conn) {
	if !c.marked {
		c.marked = true
		l.pending = append(l.pending, c)
	}
}

// attend does for c what callbacks have asked for. Only one goroutine at a time
// does: c.busy.
func (l *eventLoop) attend(c *conn) {
	for !c.busy && c.sock != nil {
		switch {
		case c.closed:
			if c.released {
				return
			}
			c.released = true
			l.unlocked(c.release)
			return
		case len(c.out) > 0 && !c.broken:
			c.writing, c.out = c.out, nil
			c.written, c.busy = 0, true
			c.unsent.Store(int64(len(c.writing)))
			l.unlocked(c.writeSome)
			if c.written < len(c.writing) && c.writeErr == nil {
				l.server.goroutines.Go(c.writeRest)
				return // busy until it has ended
			}
			l.wrote(c)
		case c.shut && !c.shutDone:
			c.shutDone = true
			l.unlocked(c.closeWrite)
		default:
			return
		}
	}
}

// wrote takes note of the end of a write. l.mu must be held.
func (l *eventLoop) wrote(c *conn) {
	c.busy = false
	l.putOut(c.writing)
	c.writing = nil
	c.unsent.Store(0)
	if c.closed {
		l.mark(c)
		return
	}
	if c.writeErr != nil {
		// The reader will find out: what the peer has sent before is still to be
		// read, and may be a response that it sent instead of reading on. Unless
		// there is no reader any more, or it waits for a client that takes nothing.
		c.broken = true
		c.out = nil
		if c.readerDone || c.paused.Load() && c.origin != nil {
			l.call(ended, c, nil, c.writeErr)
			return
		}
	}
	if len(c.out) == 0 {
		l.call(drained, c, nil, nil)
	}
}

func (l *eventLoop) unlocked(f func()) {
	l.mu.Unlock()
	f()
	l.mu.Lock()
}

func (l *eventLoop) outBuffer() []byte {
	if n := len(l.free); n > 0 {
		b := l.free[n-1]
		l.free = l.free[:n-1]
		return b
	}
	return make([]byte, 0, outBytes)
}

func (l *eventLoop) putOut(b []byte) {
	if cap(b) > 0 && cap(b) <= maxOutBytes && len(l.free) < maxFree {
		l.free = append(l.free, b[:0])
	}
}

// keepTime tells the engine about deadlines until stop is closed.
func (l *eventLoop) keepTime(stop <-chan struct{}) {
	clock := time.NewTimer(wheel.Tick)
	defer clock.Stop()
	looked := l.server.now()
	for {
		select {
		case <-clock.C:
		case <-stop:
			return
		}
		l.mu.Lock()
		for c := l.wheel.Expired(l.server.now()); c != nil; c = l.wheel.Expired(l.server.now()) {
			l.tell(timedOut, c, nil, nil)
		}
		if now := l.server.now(); now-looked >= int64(lookTime) {
			looked = now
			l.findResets()
		}
		asleep := l.wheel.Empty()
		l.mu.Unlock()
		if asleep {
			select {
			case <-l.wake:
			case <-stop:
				return
			}
		}
		clock.Reset(wheel.Tick)
	}
}

// lookTime is how often findResets looks.
const lookTime = time.Second

// findResets looks for paused connections that their clients have reset. Their
// readers wait to be resumed and cannot notice, while a backend works for nobody.
// Not for those of backends: what a backend has sent before a reset is still to
// be read, and may be the whole response. l.mu must be held.
func (l *eventLoop) findResets() {
	var broken []*conn // chosen first: telling lets go of the mutex
	for c := range l.conns {
		if c.origin != nil && c.parked && c.failed() {
			broken = append(broken, c)
		}
	}
	for _, c := range broken {
		if !c.closed {
			l.tell(ended, c, nil, errReset)
		}
	}
}

// closeAll closes every connection at once.
func (l *eventLoop) closeAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for c := range l.conns {
		l.engine.SetNow(l.server.now())
		l.engine.Abandon(&c.Conn)
		if !c.closed {
			c.close(false)
		}
	}
	l.settle()
}

// closeIdle closes up to n connections from of, or all, that have been between two
// requests since a moment.
func (l *eventLoop) closeIdle(of *proxy.Origin, n int, since int64) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.quiet = since
	// Chosen first: closing lets go of the mutex.
	var chosen []*conn
	for c := range l.conns {
		if len(chosen) == n {
			break
		}
		if c.origin != nil && (of == nil || c.origin == of) && c.AtRest(l.quiet) && !c.readable() {
			chosen = append(chosen, c)
		}
	}
	for _, c := range chosen {
		// Looked at again: bytes may have come while others were closed.
		if !c.closed && !c.readable() {
			l.tell(closeIdle, c, nil, nil)
		}
	}
	return len(chosen)
}
