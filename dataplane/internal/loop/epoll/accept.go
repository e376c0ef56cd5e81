//go:build linux

package epoll

import (
	"context"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"reverseproxy/dataplane/internal/loop/driver"
	"reverseproxy/dataplane/internal/loop/socket"
	"reverseproxy/dataplane/internal/proxy"
)

// listener implements driver.Socket. All loops wait for its connections; the
// kernel wakes one that sleeps for each (EPOLLEXCLUSIVE).
type listener struct {
	loops  *loops
	fd     int
	addr   net.Addr
	origin *proxy.Origin
}

// Open implements driver.Loops.
func (s *loops) Open(ctx context.Context, address string, port uint16, o *proxy.Origin) (driver.Socket, error) {
	sock, err := socket.Listen(ctx, address, port)
	if err != nil {
		return nil, err
	}
	// The Go runtime would wake up for each connection as well: it gets to see a
	// socket that is closed.
	defer func() { _ = sock.Close() }()
	raw, err := sock.SyscallConn()
	if err != nil {
		return nil, err
	}
	l := &listener{loops: s, addr: sock.Addr(), origin: o}
	if l.fd, err = duplicate(raw); err != nil {
		return nil, err
	}
	socket.DeferAccept(l.fd)
	return l, nil
}

// duplicate returns another file descriptor for a socket of package net.
func duplicate(raw syscall.RawConn) (fd int, err error) {
	failed := raw.Control(func(original uintptr) {
		fd, err = unix.FcntlInt(original, unix.F_DUPFD_CLOEXEC, 0)
	})
	if failed != nil {
		return -1, failed
	}
	return fd, os.NewSyscallError("fcntl", err)
}

// Addr implements driver.Socket.
func (s *listener) Addr() net.Addr { return s.addr }

// Serve implements driver.Socket.
func (s *listener) Serve() {
	for _, l := range s.loops.all {
		l.do(func() {
			for s.fd >= len(l.sockets) {
				l.sockets = append(l.sockets, nil)
			}
			l.sockets[s.fd] = s
			l.listen(s)
		})
	}
}

// listen has the loop told of the connections of s, for as long as there are any.
func (l *eventLoop) listen(s *listener) {
	if errno := add(l.epfd, int32(s.fd), unix.EPOLLIN|unix.EPOLLEXCLUSIVE, 0); errno != 0 {
		l.loops.Log.Error("accept failed", "address", s.addr.String(), "error", os.NewSyscallError("epoll_ctl", errno))
	}
}

func (l *eventLoop) ignore(s *listener) {
	_ = unix.EpollCtl(l.epfd, unix.EPOLL_CTL_DEL, s.fd, &unix.EpollEvent{})
}

// Leave implements driver.Socket.
func (s *listener) Leave(ctx context.Context) { socket.Leave(ctx, s.fd) }

// Stop implements driver.Socket.
func (s *listener) Stop() {
	s.forget()
	for i := 0; ; i++ {
		fd, ip, errno := accept(s.fd)
		switch errno {
		case 0:
			if !s.loops.all[i%len(s.loops.all)].bring(s, fd, ip) {
				closeFD(fd)
			}
		case syscall.EINTR, syscall.ECONNABORTED:
		default:
			return
		}
	}
}

// forget takes the socket from the loops.
func (s *listener) forget() {
	for _, l := range s.loops.all {
		l.do(func() {
			if s.fd < len(l.sockets) && l.sockets[s.fd] == s {
				l.sockets[s.fd] = nil
				l.ignore(s)
			}
		})
	}
}

// Close implements driver.Socket.
func (s *listener) Close() {
	s.forget()
	closeFD(int32(s.fd))
}

const (
	// maxAccepts is how many connections are accepted in one turn: the rest is left
	// to the next turn, or to another loop.
	maxAccepts = 16
	// acceptPause is how long a loop does not accept after it could not. It has run
	// out of file descriptors, most likely; connections wait in the kernel's queue.
	acceptPause = 100 * time.Millisecond
)

// accept accepts connections.
func (l *eventLoop) accept(s *listener) {
	for range maxAccepts {
		fd, ip, errno := accept(s.fd)
		switch errno {
		case 0:
			if to := l.leastLoaded(); to != l && to.bring(s, fd, ip) {
				continue
			}
			l.load.Add(1)
			l.adopt(s, fd, ip)
		case syscall.EINTR, syscall.ECONNABORTED:
		case syscall.EAGAIN:
			return
		default:
			l.loops.Log.Error("accept failed", "address", s.addr.String(), "error", os.NewSyscallError("accept4", errno))
			l.ignore(s)
			time.AfterFunc(acceptPause, func() {
				l.post(func() {
					if l.sockets[s.fd] == s {
						l.listen(s)
					}
				})
			})
			return
		}
	}
}

// unevenness is how many connections, and which part of all, a loop may have more
// than another before it gives new ones away. Which of the loops that sleep is
// woken for a connection is the kernel's choice, and it has a favourite; but a
// connection that changes the loop costs a wake-up.
const (
	unevenness     = 2
	unevennessPart = 8
)

// leastLoaded returns the loop that is to have the next connection.
func (l *eventLoop) leastLoaded() *eventLoop {
	to, least := l, l.load.Load()
	enough := least - unevenness - least/unevennessPart
	for _, other := range l.loops.all {
		if n := other.load.Load(); n < least && n <= enough {
			to, least = other, n
		}
	}
	return to
}

// bring has l adopt a connection that another goroutine has accepted. It returns
// false when l has ended.
func (l *eventLoop) bring(s *listener, fd int32, ip netip.Addr) bool {
	l.load.Add(1)
	return l.post(func() { l.adopt(s, fd, ip) })
}

// adopt makes a new client connection one of the loop's.
func (l *eventLoop) adopt(s *listener, fd int32, ip netip.Addr) {
	verdict := l.loops.Admit(s.origin)
	if verdict == driver.Drop || l.ended {
		if verdict != driver.Drop {
			l.loops.Gone(s.origin)
		}
		l.load.Add(-1)
		closeFD(fd)
		return
	}
	c := l.newConn(fd)
	l.current = c
	if verdict == driver.Refuse {
		l.engine.Refuse(&c.Conn, l.names.of(ip), s.origin)
	} else {
		l.engine.Accept(&c.Conn, l.names.of(ip), s.origin)
		l.read(c) // most have sent their request by now
	}
	switch {
	case c.closed:
	case c.Answering():
		// Nothing is expected from the client until it has its response, and many
		// are closed then.
		c.unwatched = true
		l.fresh = append(l.fresh, fresh{c, c.generation, l.now})
	default:
		l.register(c)
	}
}

// fresh is a connection that is not registered yet, unless it is another one by
// now.
type fresh struct {
	conn       *conn
	generation uint32
	since      int64
}

// freshTime is how long a connection may stay unregistered while the loop is busy:
// so long it is not noticed when the client leaves.
const freshTime = int64(5 * time.Millisecond)

// watchFresh registers connections that have not been registered since a moment.
func (l *eventLoop) watchFresh(since int64) {
	n := 0
	for ; n < len(l.fresh) && l.fresh[n].since <= since; n++ {
		if f := l.fresh[n]; f.conn.generation == f.generation && f.conn.unwatched {
			l.watch(f.conn)
		}
	}
	if n > 0 {
		l.fresh = l.fresh[:copy(l.fresh, l.fresh[n:])]
	}
}

// watch registers a connection that was left out.
func (l *eventLoop) watch(c *conn) {
	c.unwatched = false
	if !c.closed {
		l.register(c)
	}
}

// register has c watched. A connection that cannot be is of no use.
func (l *eventLoop) register(c *conn) {
	if errno := add(l.epfd, c.fd, everything, c.generation); errno != 0 {
		l.loops.Log.Error("connection lost", "error", os.NewSyscallError("epoll_ctl", errno))
		c.broken = errno
		l.look(c)
	}
}

// addressNames holds the text of addresses, so that clients who come back cost no
// memory.
type addressNames [256]struct {
	ip   netip.Addr
	text string
}

func (a *addressNames) of(ip netip.Addr) string {
	b := ip.As16()
	e := &a[b[15]^b[14]*31^b[13]*17]
	if e.ip != ip || e.text == "" {
		e.ip, e.text = ip, socket.Remote(ip)
	}
	return e.text
}
