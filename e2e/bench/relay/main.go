//go:build linux

// Command relay copies bytes between TCP connections and knows nothing of HTTP:
// each connection it accepts gets one connection to a backend, in turn. It is
// what `make bench` compares proxies with: no proxy that reads from one socket
// and writes to another can cost much less, because what is left here is the
// kernel's work.
//
// One thread, one epoll set, edge-triggered; plain recv and send. It never
// collects garbage and has no second goroutine, so nothing ever needs to stop
// this thread, and blocking system calls may bypass Go's scheduler.
package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"unsafe"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

// bufferSize is the longest piece that is moved at once. It decides what large
// bodies cost: with 64 KiB both 64 KB and 1 MB responses cost a sixth more.
const bufferSize = 256 << 10

func main() {
	listen := pflag.String("listen", "", "`address:port` to accept on")
	backends := pflag.StringArray("backend", nil, "`address:port` of a backend; repeatable, taken in turn")
	pflag.Parse()
	if err := run(*listen, *backends); err != nil {
		fmt.Fprintln(os.Stderr, "relay:", err)
		os.Exit(1)
	}
}

func run(listen string, backends []string) error {
	runtime.LockOSThread()
	debug.SetGCPercent(-1)
	addr, err := parse(listen)
	if err != nil {
		return err
	}
	if len(backends) == 0 {
		return errors.New("no --backend")
	}
	r := &relay{buf: make([]byte, bufferSize)}
	for _, b := range backends {
		a, err := parse(b)
		if err != nil {
			return err
		}
		r.backends = append(r.backends, a)
	}
	if r.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	if r.listener, err = listenOn(addr); err != nil {
		return fmt.Errorf("listen on %s: %w", listen, err)
	}
	if err := r.watch(r.listener, unix.EPOLLIN); err != nil {
		return err
	}
	return r.loop()
}

func parse(s string) (*unix.SockaddrInet4, error) {
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return nil, err
	}
	if !a.Addr().Is4() {
		return nil, fmt.Errorf("%s: want an IPv4 address", s)
	}
	return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}, nil
}

func listenOn(addr unix.Sockaddr) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return -1, err
	}
	if err := unix.Bind(fd, addr); err != nil {
		return -1, err
	}
	return fd, unix.Listen(fd, 4096)
}

// relay is the one loop.
type relay struct {
	epoll    int
	listener int
	backends []*unix.SockaddrInet4
	next     int // backend of the next connection
	buf      []byte
	// ends are both sides of all connections, by file descriptor. A descriptor
	// that is used again within a batch may be shown an event of its
	// predecessor: it finds nothing to read then, and no harm is done.
	ends []*end
}

// end is one side of a relayed connection.
type end struct {
	fd    int
	other *end
	// unsent waits for this side to take more. While there is some, the other
	// side is not read.
	unsent []byte
}

func (r *relay) watch(fd int, events uint32) error {
	return unix.EpollCtl(r.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
}

func (r *relay) loop() error {
	events := make([]unix.EpollEvent, 512)
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(r.epoll),
			uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), ^uintptr(0), 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return fmt.Errorf("epoll_pwait: %w", errno)
		}
		for _, ev := range events[:n] {
			fd := int(ev.Fd)
			if fd == r.listener {
				if err := r.accept(); err != nil {
					return err
				}
				continue
			}
			e := r.ends[fd]
			if e == nil {
				continue
			}
			if ev.Events&unix.EPOLLOUT != 0 && len(e.unsent) > 0 && !r.flush(e) {
				continue
			}
			if ev.Events&^unix.EPOLLOUT != 0 {
				r.pump(e, ev.Events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0)
			}
		}
	}
}

func (r *relay) accept() error {
	for {
		fd, _, err := unix.Accept4(r.listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case errors.Is(err, unix.ECONNABORTED), errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("accept: %w", err)
		}
		backend, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("socket: %w", err)
		}
		client, server := &end{fd: fd}, &end{fd: backend}
		client.other, server.other = server, client
		for _, e := range []*end{client, server} {
			if err := unix.SetsockoptInt(e.fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
				return fmt.Errorf("TCP_NODELAY: %w", err)
			}
			for len(r.ends) <= e.fd {
				r.ends = append(r.ends, nil)
			}
			r.ends[e.fd] = e
		}
		addr := r.backends[r.next]
		r.next = (r.next + 1) % len(r.backends)
		if err := unix.Connect(backend, addr); err != nil && !errors.Is(err, unix.EINPROGRESS) {
			r.drop(client)
			continue
		}
		for _, e := range []*end{server, client} {
			if err := r.watch(e.fd, unix.EPOLLIN|unix.EPOLLOUT|unix.EPOLLRDHUP|unix.EPOLLET); err != nil {
				return fmt.Errorf("epoll_ctl: %w", err)
			}
		}
	}
}

// pump moves what can be read from one side to the other. A piece that does not
// fill the buffer was the last one, unless the end follows it, which gives no
// event of its own.
func (r *relay) pump(from *end, ended bool) {
	for len(from.other.unsent) == 0 {
		n, errno := recv(from.fd, r.buf)
		switch {
		case errno == unix.EINTR:
			continue
		case errno == unix.EAGAIN:
			return
		case errno != 0 || n == 0:
			r.drop(from)
			return
		}
		if !r.send(from.other, r.buf[:n]) || n < len(r.buf) && !ended {
			return
		}
	}
}

// send writes p to e and keeps what it does not take; it reports whether the
// connection is still there.
func (r *relay) send(e *end, p []byte) bool {
	for len(p) > 0 {
		n, errno := send(e.fd, p)
		switch errno {
		case 0:
			p = p[n:]
		case unix.EINTR:
		case unix.EAGAIN:
			e.unsent = append(e.unsent, p...)
			return true
		default:
			r.drop(e)
			return false
		}
	}
	return true
}

// flush sends what was kept; when that is all gone the other side is read again.
func (r *relay) flush(e *end) bool {
	p := e.unsent
	e.unsent = nil
	if !r.send(e, p) {
		return false
	}
	if len(e.unsent) == 0 {
		r.pump(e.other, true)
	}
	return r.ends[e.fd] == e
}

// drop ends both sides.
func (r *relay) drop(e *end) {
	for _, side := range []*end{e, e.other} {
		r.ends[side.fd] = nil
		unix.Close(side.fd)
	}
}

// recv and send are raw: see the package comment.

func recv(fd int, p []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), 0, 0, 0)
	return int(n), errno
}

func send(fd int, p []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), unix.MSG_NOSIGNAL, 0, 0)
	return int(n), errno
}
