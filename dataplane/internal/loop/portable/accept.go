//go:build unix

package portable

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"reverseproxy/dataplane/internal/loop/driver"
	"reverseproxy/dataplane/internal/loop/socket"
	"reverseproxy/dataplane/internal/proxy"
)

// listener implements driver.Socket.
type listener struct {
	loops   *loops
	socket  *net.TCPListener
	origin  *proxy.Origin
	stopped chan struct{} // accepting has ended; nil before it has begun
}

// Open implements driver.Loops.
func (s *loops) Open(ctx context.Context, address string, port uint16, o *proxy.Origin) (driver.Socket, error) {
	l, err := socket.Listen(ctx, address, port)
	if err != nil {
		return nil, err
	}
	return &listener{loops: s, socket: l, origin: o}, nil
}

// Addr implements driver.Socket.
func (l *listener) Addr() net.Addr { return l.socket.Addr() }

// Serve implements driver.Socket.
func (l *listener) Serve() {
	l.stopped = make(chan struct{})
	l.loops.accepting.Go(l.accept)
}

// Leave implements driver.Socket.
func (l *listener) Leave(ctx context.Context) {
	raw, err := l.socket.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { socket.Leave(ctx, int(fd)) })
}

// Stop implements driver.Socket.
func (l *listener) Stop() {
	if l.stopped != nil {
		_ = l.socket.SetDeadline(time.Unix(1, 0))
		<-l.stopped
	}
}

// Close implements driver.Socket.
func (l *listener) Close() { _ = l.socket.Close() }

// accept hands every connection to a loop until the socket is stopped or closed.
func (l *listener) accept() {
	defer close(l.stopped)
	delay := time.Duration(0)
	for {
		sock, err := l.socket.AcceptTCP()
		switch {
		case err == nil:
			delay = 0
			l.loops.take(l.origin, sock)
		case errors.Is(err, os.ErrDeadlineExceeded):
			l.sweep()
			return
		case errors.Is(err, net.ErrClosed):
			return
		default:
			// Out of file descriptors, most likely. Connections wait in the
			// kernel's queue meanwhile.
			if delay == 0 {
				l.loops.Log.Error("accept failed", "address", l.Addr().String(), "error", err)
			}
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			select {
			case <-time.After(delay):
			case <-l.loops.ctx.Done():
			}
		}
	}
}

// sweep accepts what is left in the queue of the operating system: those clients
// are connected as far as they know, and closing the socket would reset them.
func (l *listener) sweep() {
	raw, err := l.socket.SyscallConn()
	if err != nil {
		return
	}
	for {
		fd := -1
		_ = raw.Control(func(listening uintptr) {
			for {
				fd, _, err = syscall.Accept(int(listening))
				if err != syscall.EINTR && err != syscall.ECONNABORTED {
					break
				}
			}
		})
		if err != nil || fd < 0 {
			return
		}
		file := os.NewFile(uintptr(fd), "")
		sock, err := net.FileConn(file)
		_ = file.Close()
		if err != nil {
			continue
		}
		if tcp, ok := sock.(*net.TCPConn); ok {
			l.loops.take(l.origin, tcp)
		}
	}
}

// take gives a new connection to the next loop.
func (s *loops) take(from *proxy.Origin, sock *net.TCPConn) {
	ev := accepted
	switch s.Admit(from) {
	case driver.Drop:
		_ = sock.Close()
		return
	case driver.Refuse:
		ev = refused
	}
	l := s.all[s.next.Add(1)%uint64(len(s.all))]
	c := newConn(l)
	c.origin, c.remote = from, remoteAddress(sock)
	err := c.attach(sock)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil || l.closed {
		_ = sock.Close()
		s.Gone(from)
		return
	}
	l.conns[c] = struct{}{}
	l.tell(ev, c, nil, nil)
	s.goroutines.Go(c.serve)
}

func remoteAddress(sock *net.TCPConn) string {
	var ip netip.Addr
	if a, ok := sock.RemoteAddr().(*net.TCPAddr); ok {
		ip, _ = netip.AddrFromSlice(a.IP)
	}
	return socket.Remote(ip)
}
