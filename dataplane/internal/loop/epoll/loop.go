//go:build linux

package epoll

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"reverseproxy/dataplane/internal/loop/wheel"
	"reverseproxy/dataplane/internal/proxy"
)

const (
	// batch is how many events one wait may return.
	batch = 256
	// manyEvents in one batch show that there is so much to do that the loop need not
	// get ready to sleep; rawWait is how long a wait may take then, in milliseconds.
	manyEvents = 3
	rawWait    = 2
	// shortGap from one turn to the next, on the average, in nanoseconds, shows that the
	// next wait is likely to be short, too. A gap counts as longGap at most, and one
	// in gapWeight.
	shortGap  = int64(5 * time.Millisecond)
	longGap   = int64(50 * time.Millisecond)
	gapWeight = 8
	// clockEvents is after how many events the clock is read again.
	clockEvents = 64
	// rounds is how often a connection whose buffer is full is read in one turn.
	rounds = 8
	// clientEvents is how many events of clients are worked through in one turn; half as
	// many as there were of backends, if that is more, lest clients wait for ever.
	clientEvents = 32

	maxConns = 1024 // of closed connections kept for reuse
)

// eventLoop is one thread with its engine and connections. Only what is said to be
// for others is touched by other goroutines.
type eventLoop struct {
	loops  *loops
	engine *proxy.Engine
	epfd   int
	wheel  wheel.Wheel[conn]
	now    int64
	gap    int64 // from one turn to the next, moving average

	// conns and sockets are found by file descriptor.
	conns      []*conn
	sockets    []*listener
	generation uint32 // of the last connection; 0 is no connection's
	sweep      int    // where closeIdle goes on

	buf    []byte
	events []unix.EpollEvent
	ready  []unix.EpollEvent // those of events that are still to be worked through
	last   int               // how many the last wait returned
	worked int               // events worked through in this turn
	// waiting are the clients with events that are still to be worked through.
	waiting queue
	held    held
	// again are the connections to be looked at without an event: there is more to
	// read, or they were resumed, or found broken.
	again   []*conn
	fresh   []fresh // the oldest first
	looked  int     // how many of them have been looked at in this turn
	closed  []*conn // closed and not used again yet
	spare   []*conn // to be used again
	outs    []*out  // empty, to be used again
	pipes   []*pipe // empty, to be used again
	current *conn   // that the engine is called for
	names   addressNames
	dials   map[*conn]context.CancelFunc // by name, that are under way
	ended   bool

	// For other goroutines as well.
	inbox
	panics atomic.Uint64
	alarm  atomic.Int64 // when it is to be woken while it sleeps; 0: never
	load   atomic.Int64 // clients, and those on their way here
}

func newEventLoop(s *loops) (*eventLoop, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	wakefd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = unix.Close(epfd)
		return nil, os.NewSyscallError("eventfd", err)
	}
	l := &eventLoop{
		loops: s, epfd: epfd, now: s.now(),
		buf: make([]byte, proxy.ReadSize), events: make([]unix.EpollEvent, batch),
		inbox: inbox{wakefd: wakefd}, dials: map[*conn]context.CancelFunc{},
	}
	l.wheel.Init(l.now)
	if errno := add(epfd, int32(wakefd), unix.EPOLLIN|unix.EPOLLET&0xffffffff, 0); errno != 0 {
		l.free()
		return nil, os.NewSyscallError("epoll_ctl", errno)
	}
	return l, nil
}

// run is the loop's thread.
func (l *eventLoop) run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for !l.ended {
		l.turn()
	}
	for _, f := range l.close() {
		l.guard(f)
	}
	for _, c := range l.conns {
		if c != nil && !c.closed {
			l.abandon(c)
		}
	}
	for _, p := range l.pipes {
		p.close()
	}
	l.free()
}

// stop ends the loop.
func (l *eventLoop) stop() { l.post(func() { l.ended = true }) }

// turn works until the loop ends, or until the engine panics. It is the edge
// between bytes from the network and the rest of the process: a panic costs the
// connection, not the process.
func (l *eventLoop) turn() {
	defer l.survive()
	for !l.ended {
		if len(l.ready) == 0 { // else they are left from a turn that panicked
			l.wait()
		}
		l.work()
	}
}

// work does everything there is to do.
func (l *eventLoop) work() {
	last := l.now
	l.clock()
	l.gap += (min(l.now-last, longGap) - l.gap) / gapWeight
	l.worked = 0
	l.held.busy = len(l.ready)+l.waiting.len() >= busyEvents
	for len(l.ready) > 0 {
		ev := &l.ready[0]
		l.ready = l.ready[1:]
		l.event(ev)
	}
	for range max(clientEvents, l.worked/2) {
		c, events := l.waiting.take()
		if c == nil {
			break
		}
		l.happened(c, events)
	}
	l.flush()
	if l.full.Load() {
		for _, f := range l.take() {
			l.guard(f)
		}
	}
	if !l.wheel.Empty() {
		for c := l.wheel.Expired(l.now); c != nil; c = l.wheel.Expired(l.now) {
			l.timeout(c)
		}
	}
	for n := len(l.again); l.looked < n; {
		c := l.again[l.looked]
		l.looked++
		c.listed = false
		if !c.closed {
			l.lookAgain(c)
		}
	}
	l.again = l.again[:copy(l.again, l.again[l.looked:])]
	l.looked = 0
	if len(l.fresh) > 0 {
		l.watchFresh(l.now - freshTime)
	}
	l.recycle()
}

func (l *eventLoop) clock() {
	l.now = l.loops.now()
	l.engine.SetNow(l.now)
}

// wait waits for events, if there is nothing else to do.
func (l *eventLoop) wait() {
	l.flush()
	l.asleep.Store(true)
	switch {
	case len(l.again) > 0 || l.waiting.len() > 0 || l.full.Load():
		l.await(waitRaw(l.epfd, l.events, 0))
	case l.last >= manyEvents:
		l.await(waitRaw(l.epfd, l.events, rawWait))
	default:
		l.watchFresh(l.now)
		l.loops.setAlarm(l, l.wheel.Next())
		if l.gap < shortGap {
			l.await(waitRaw(l.epfd, l.events, forever))
		} else {
			l.await(waitLong(l.epfd, l.events))
		}
		l.alarm.Store(0)
	}
	l.asleep.Store(false)
}

// await takes what a wait has returned.
func (l *eventLoop) await(n int, errno syscall.Errno) {
	if errno != 0 {
		n = 0
		if errno == syscall.EINTR {
			runtime.Gosched() // see the package comment
		}
	}
	l.last = n
	l.ready = l.events[:n]
}

// event handles what epoll tells about a file descriptor. What it tells about a client
// has to wait.
func (l *eventLoop) event(ev *unix.EpollEvent) {
	fd, generation := ev.Fd, uint32(ev.Pad)
	if generation == 0 {
		l.current = nil
		if int(fd) < len(l.sockets) && l.sockets[fd] != nil {
			l.accept(l.sockets[fd])
		}
		return // or it was the eventfd: the inbox is looked at anyway
	}
	c := l.conns[fd]
	switch {
	case c == nil || c.generation != generation: // closed in this batch
	case c.Origin() != nil:
		l.waiting.add(c, ev.Events)
	default:
		l.happened(c, ev.Events)
	}
}

// happened handles events of a connection.
func (l *eventLoop) happened(c *conn, events uint32) {
	if l.worked++; l.worked%clockEvents == 0 {
		l.clock()
	}
	l.current = c
	if c.connecting {
		l.connected(c)
		if c.closed {
			return
		}
	}
	if events&unix.EPOLLOUT != 0 {
		switch {
		case c.out != nil:
			l.writable(c)
		case c.pipe != nil && c.pipe.to == c:
			l.pump(c.pipe)
		}
	}
	if events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) == 0 || c.closed {
		return
	}
	c.unread = true
	if events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		c.ending = true
	}
	l.read(c)
	if events&unix.EPOLLERR != 0 && c.Origin() != nil && !c.closed && (c.paused || c.ended) {
		// Nobody reads (any more: what was read may have been reason enough), and the
		// client has reset the connection: a backend would work for nobody.
		l.engine.EOF(&c.Conn, errReset)
	}
}

// look puts c on the list of connections to be looked at.
func (l *eventLoop) look(c *conn) {
	if !c.listed {
		c.listed = true
		l.again = append(l.again, c)
	}
}

// lookAgain handles a connection that was put on the list.
func (l *eventLoop) lookAgain(c *conn) {
	l.current = c
	if c.unwatched {
		l.watch(c)
	}
	switch {
	case c.connecting:
		if c.broken != 0 {
			l.dialFailed(c, c.broken == syscall.ETIMEDOUT)
		}
	case c.broken != 0 && (c.ended || c.paused && c.Origin() != nil):
		l.engine.EOF(&c.Conn, c.broken)
	case c.unread || c.broken != 0:
		l.read(c)
	}
}

// read receives and tells the engine.
func (l *eventLoop) read(c *conn) {
	for range rounds {
		if c.closed || c.paused || c.ended {
			return
		}
		if c.pipe != nil && c.pipe.from == c {
			if !l.pump(c.pipe) {
				return
			}
			continue
		}
		n, errno := recv(c.fd, l.buf)
		switch {
		case n > 0 && errno == 0:
			// A short read has emptied the socket. If the peer has announced its
			// end, that is still to be read.
			c.unread = n == len(l.buf) || c.ending || c.broken != 0
			l.engine.Data(&c.Conn, l.buf[:n])
			if !c.unread {
				return
			}
		case errno == 0:
			// The operating system tells of a reset once. If a write was told,
			// what looks like the peer's FIN is that reset.
			l.end(c, c.broken)
			return
		case errno == syscall.EAGAIN && c.broken != 0:
			l.end(c, c.broken)
			return
		case errno == syscall.EAGAIN:
			c.unread = false
			return
		default:
			l.end(c, errno)
			return
		}
	}
	if !c.closed {
		l.look(c) // others first
	}
}

// end tells the engine that nothing more comes.
func (l *eventLoop) end(c *conn, errno syscall.Errno) {
	c.ended, c.unread = true, false
	var err error
	if errno != 0 {
		err = errno
	}
	l.engine.EOF(&c.Conn, err)
}

// writable sends what is queued.
func (l *eventLoop) writable(c *conn) {
	for o := c.out; len(o.rest()) > 0; {
		n, errno := send(c.fd, o.rest())
		if errno == syscall.EAGAIN {
			return
		}
		if errno != 0 {
			l.broke(c, errno)
			return
		}
		o.sent += n
	}
	l.emptied(c)
	l.engine.Drained(&c.Conn)
}

// broke takes note that c cannot be written to. The read side will tell: what the
// peer has sent before is still to be read, and may be a response that it sent
// instead of reading on.
func (l *eventLoop) broke(c *conn, errno syscall.Errno) {
	c.broken = errno
	l.dropOut(c)
	l.look(c)
}

// emptied takes note that everything queued for c has been sent.
func (l *eventLoop) emptied(c *conn) {
	l.dropOut(c)
	if c.shut {
		shutdownWrite(c.fd)
	}
}

func (l *eventLoop) timeout(c *conn) {
	l.current = c
	if c.connecting {
		l.dialFailed(c, true)
		return
	}
	l.engine.Timeout(&c.Conn)
}

// guard calls f, which is to set current if it calls the engine for a connection.
func (l *eventLoop) guard(f func()) {
	defer l.survive()
	l.current = nil
	f()
}

// survive ends a turn that has panicked.
func (l *eventLoop) survive() {
	r := recover()
	if r == nil {
		return
	}
	l.panicked(r)
	if c := l.current; c != nil && !c.closed {
		l.abandon(c)
	}
}

func (l *eventLoop) panicked(r any) {
	l.panics.Add(1)
	l.loops.Log.Error("connection closed after a panic", "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
}

// abandon gives up a connection whose session cannot be trusted any more.
func (l *eventLoop) abandon(c *conn) {
	defer func() {
		if !c.closed {
			(*driverOf)(l).close(c)
		}
		_ = recover() // what it was abandoned for may be met again
	}()
	l.engine.Abandon(&c.Conn)
}

// closeIdle closes up to n connections from of, or all, that have been between two
// requests since a moment.
func (l *eventLoop) closeIdle(of *proxy.Origin, n int, since int64) int {
	closed := 0
	for range l.conns {
		if closed == n {
			break
		}
		l.sweep = (l.sweep + 1) % len(l.conns)
		c := l.conns[l.sweep]
		if c == nil || c.Origin() == nil || of != nil && c.Origin() != of || !c.AtRest(since) || readable(c.fd) {
			continue
		}
		l.current = c
		if l.engine.CloseIdle(&c.Conn, since) {
			closed++
		}
	}
	return closed
}
