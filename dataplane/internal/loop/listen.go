//go:build unix

package loop

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"reverseproxy/dataplane/internal/proxy"
)

// Listener accepts client connections at one address. All methods may be called
// from several goroutines.
type Listener struct {
	server *Server
	socket *net.TCPListener
	origin proxy.Origin

	connections atomic.Int64
	serving     sync.Once
	stopping    sync.Once
	stopped     chan struct{} // accepting has ended
	accepts     atomic.Bool
}

// Open listens at address (empty: all) and port (0: any free one). The socket is
// bound and listening when Open returns, so that clients can connect, but nothing
// is accepted before Serve. Several processes may share the port.
func (s *Server) Open(address string, port uint16) (*Listener, error) {
	config := net.ListenConfig{Control: reusePort, KeepAlive: -1}
	config.SetMultipathTCP(false) // whose sockets know fewer options: see ignoreSYN
	socket, err := config.Listen(s.ctx, "tcp", net.JoinHostPort(address, strconv.Itoa(int(port))))
	if err != nil {
		return nil, err
	}
	l := &Listener{server: s, socket: socket.(*net.TCPListener), stopped: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = socket.Close()
		return nil, errClosed
	}
	s.listeners[l] = struct{}{}
	return l, nil
}

func reusePort(_, _ string, raw syscall.RawConn) error {
	var failed error
	err := raw.Control(func(fd uintptr) {
		failed = os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	})
	return errors.Join(err, failed)
}

// Addr returns the address that the listener is bound to.
func (l *Listener) Addr() net.Addr { return l.socket.Addr() }

// Serve accepts connections in the background until Close.
func (l *Listener) Serve() {
	l.serving.Do(func() {
		l.server.mu.Lock()
		defer l.server.mu.Unlock()
		if l.server.closed || l.origin.Draining() {
			return
		}
		l.accepts.Store(true)
		l.server.accepting.Go(l.accept)
	})
}

// Close stops accepting, but first accepts what the operating system has accepted
// already or, on Linux, is about to. Established connections finish the request in progress, are told that
// the connection ends, and are closed; those between two requests are closed in
// the background, spread over a few seconds. Close returns when nothing is
// accepted any more.
func (l *Listener) Close() {
	l.stop(l.server.ctx)
	l.server.mu.Lock()
	defer l.server.mu.Unlock()
	if !l.server.closed {
		l.server.goroutines.Go(l.drainBehind)
	}
}

// drainBehind closes the connections of a listener that is gone, while others go
// on.
func (l *Listener) drainBehind() {
	ctx, cancel := context.WithTimeout(l.server.ctx, spreadTime)
	defer cancel()
	l.server.drain(ctx, l, drainStep)
	// What is left is in use, perhaps for hours (tunnels).
	l.server.drain(l.server.ctx, l, time.Second)
}

const spreadTime = 10 * time.Second

// handshakeTime is how long connections that are being made when a listener closes
// have to become established: a round trip, to the far side of the world.
const handshakeTime = 200 * time.Millisecond

// stop ends accepting and waits for that, not longer than ctx allows.
//
// A socket that is closed resets the connections that it has not handed out, and
// those whose handshake it has begun, although their clients are connected as far
// as they know. So first it takes no new ones: their clients try again within a
// second, and meet whoever shares the port, or nobody.
func (l *Listener) stop(ctx context.Context) {
	l.stopping.Do(func() {
		l.origin.Drain()
		l.server.mu.Lock()
		accepts := l.accepts.Load()
		delete(l.server.listeners, l)
		l.server.mu.Unlock()
		if accepts {
			if ignoreSYN(l.socket) {
				select {
				case <-time.After(handshakeTime):
				case <-ctx.Done():
				}
			}
			_ = l.socket.SetDeadline(time.Unix(1, 0))
			<-l.stopped
		}
		_ = l.socket.Close()
	})
}

// accept hands every connection to a loop until the listener is closed.
func (l *Listener) accept() {
	defer close(l.stopped)
	delay := time.Duration(0)
	for {
		sock, err := l.socket.AcceptTCP()
		switch {
		case err == nil:
			delay = 0
			l.server.take(l, sock)
		case errors.Is(err, os.ErrDeadlineExceeded):
			l.sweep()
			return
		case errors.Is(err, net.ErrClosed):
			return
		default:
			// Out of file descriptors, most likely. Connections wait in the
			// kernel's queue meanwhile.
			if delay == 0 {
				l.server.options.Log.Error("accept failed", "address", l.Addr().String(), "error", err)
			}
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			select {
			case <-time.After(delay):
			case <-l.server.ctx.Done():
			}
		}
	}
}

// sweep accepts what is left in the queue of the operating system: those clients
// are connected as far as they know, and closing the socket would reset them.
func (l *Listener) sweep() {
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
			l.server.take(l, tcp)
		}
	}
}

// take gives a new connection to the next loop.
func (s *Server) take(from *Listener, sock *net.TCPConn) {
	limit := int64(0)
	if t := s.options.Live.Load(); t != nil {
		limit = int64(t.Limits.Connections)
	}
	ev := accepted
	if n := s.connections.Load(); limit > 0 && n >= limit {
		ev = refused
		if n >= limit+maxRefused {
			_ = sock.Close()
			return
		}
	}
	l := s.loops[s.next.Add(1)%uint64(len(s.loops))]
	c := newConn(l)
	c.listener, c.remote = from, remoteAddress(sock)
	if c.attach(sock) != nil {
		_ = sock.Close()
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		_ = sock.Close()
		return
	}
	s.connections.Add(1)
	from.connections.Add(1)
	l.conns[c] = struct{}{}
	l.tell(ev, c, nil, nil)
	s.goroutines.Go(c.serve)
}

// remoteAddress returns the client's address as X-Forwarded-For has it.
func remoteAddress(sock *net.TCPConn) string {
	if a, ok := sock.RemoteAddr().(*net.TCPAddr); ok {
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			return ip.Unmap().String()
		}
	}
	return "unknown"
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
