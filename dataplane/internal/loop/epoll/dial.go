//go:build linux

package epoll

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"reverseproxy/dataplane/internal/proxy"
)

// Dial implements proxy.Driver. An address is connected to from here. A name
// (localhost, and others until package resolve has found their addresses) is looked
// up and connected to by a goroutine, which tries its addresses as package net does,
// and the loop takes over the connection that came of it.
func (d *driverOf) Dial(addr string, timeout time.Duration) *proxy.Conn {
	l := d.loop()
	c := l.newConn(-1)
	c.connecting = true
	if to, err := netip.ParseAddrPort(addr); err == nil {
		if errno := l.connect(c, to); errno != 0 {
			l.failLater(c, errno)
		} else {
			l.wheel.Set(&c.timer, l.now+int64(timeout), l.now)
		}
		return &c.Conn
	}
	ctx, cancel := context.WithTimeout(l.loops.ctx, timeout)
	l.dials[c] = cancel
	generation := c.generation
	l.loops.goroutines.Go(func() {
		defer cancel()
		fd, err := dialName(ctx, l.loops.Resolver, addr)
		if !l.post(func() { l.dialled(c, generation, fd, err) }) && fd >= 0 {
			closeFD(int32(fd))
		}
	})
	return &c.Conn
}

// failLater has the engine told that c cannot be dialled, after it has returned.
func (l *eventLoop) failLater(c *conn, errno syscall.Errno) {
	c.broken = errno
	l.look(c)
}

// connect begins to connect c.
func (l *eventLoop) connect(c *conn, to netip.AddrPort) syscall.Errno {
	domain := uintptr(unix.AF_INET)
	if to.Addr().Unmap().Is6() {
		domain = unix.AF_INET6
	}
	fd, _, errno := syscall.RawSyscall(unix.SYS_SOCKET, domain,
		unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if errno != 0 {
		return errno
	}
	l.own(c, int32(fd))
	noDelay(int(fd))
	port := [2]byte{byte(to.Port() >> 8), byte(to.Port())}
	if domain == unix.AF_INET {
		sa := unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: to.Addr().Unmap().As4()}
		sa.Port = *(*uint16)(unsafe.Pointer(&port))
		_, _, errno = syscall.RawSyscall(unix.SYS_CONNECT, fd, uintptr(unsafe.Pointer(&sa)), unix.SizeofSockaddrInet4)
	} else {
		sa := unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: to.Addr().As16(), Scope_id: scope(to.Addr().Zone())}
		sa.Port = *(*uint16)(unsafe.Pointer(&port))
		_, _, errno = syscall.RawSyscall(unix.SYS_CONNECT, fd, uintptr(unsafe.Pointer(&sa)), unix.SizeofSockaddrInet6)
	}
	if errno != 0 && errno != syscall.EINPROGRESS {
		return errno
	}
	return add(l.epfd, c.fd, everything, c.generation)
}

func noDelay(fd int) { _ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) }

// scope returns the number of an IPv6 zone, 0 when there is none.
func scope(zone string) uint32 {
	if zone == "" {
		return 0
	}
	i, err := net.InterfaceByName(zone)
	if err != nil {
		return 0
	}
	return uint32(i.Index)
}

// connected handles an event of a connection that is being dialled.
func (l *eventLoop) connected(c *conn) {
	code, err := unix.GetsockoptInt(int(c.fd), unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil || code != 0 {
		l.dialFailed(c, syscall.Errno(code) == syscall.ETIMEDOUT)
		return
	}
	l.open(c)
}

// open makes c, which is connected, an open connection.
func (l *eventLoop) open(c *conn) {
	c.connecting = false
	l.wheel.Drop(&c.timer)
	l.engine.Connected(&c.Conn)
	if c.closed {
		return
	}
	if c.out != nil {
		l.writable(c)
	} else if c.shut {
		shutdownWrite(c.fd)
	}
}

// dialFailed gives up a connection that could not be opened.
func (l *eventLoop) dialFailed(c *conn, timeout bool) {
	(*driverOf)(l).close(c)
	l.engine.DialFailed(&c.Conn, timeout)
}

// dialName connects to host:port and returns the socket.
func dialName(ctx context.Context, resolver *net.Resolver, addr string) (fd int, err error) {
	dialer := net.Dialer{Resolver: resolver, KeepAlive: -1} // sessions have deadlines of their own
	sock, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return -1, err
	}
	defer func() { _ = sock.Close() }()
	raw, err := sock.(*net.TCPConn).SyscallConn()
	if err != nil {
		return -1, err
	}
	return duplicate(raw)
}

// dialled takes over what dialName has returned.
func (l *eventLoop) dialled(c *conn, generation uint32, fd int, err error) {
	if c.generation != generation || c.closed {
		if fd >= 0 {
			closeFD(int32(fd))
		}
		return
	}
	l.current = c
	if err != nil {
		var t interface{ Timeout() bool }
		l.dialFailed(c, errors.As(err, &t) && t.Timeout())
		return
	}
	delete(l.dials, c)
	l.own(c, int32(fd))
	if errno := add(l.epfd, c.fd, everything, c.generation); errno != 0 {
		l.loops.Log.Error("connection lost", "error", os.NewSyscallError("epoll_ctl", errno))
		l.dialFailed(c, false)
		return
	}
	l.open(c)
}
