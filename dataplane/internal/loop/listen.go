package loop

import (
	"context"
	"net"
	"sync"

	"reverseproxy/dataplane/internal/loop/driver"
	"reverseproxy/dataplane/internal/proxy"
)

// Listener accepts client connections at one address. All methods may be called
// from several goroutines.
type Listener struct {
	server *Server
	origin proxy.Origin
	addr   net.Addr
	// stopped is closed when nothing is accepted any more.
	stopped chan struct{}

	mu      sync.Mutex // held while it is being stopped or closed
	socket  driver.Socket
	serving bool
	closed  bool
}

// Open listens at address (empty: all) and port (0: any free one). The socket is
// bound and listening when Open returns, so that clients can connect, but nothing
// is accepted before Serve. Several processes may share the port.
func (s *Server) Open(address string, port uint16) (*Listener, error) {
	l := &Listener{server: s, stopped: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	var err error
	if l.socket, err = s.loops.Open(s.ctx, address, port, &l.origin); err != nil {
		return nil, err
	}
	l.addr = l.socket.Addr()
	s.listeners[l] = struct{}{}
	return l, nil
}

// Addr returns the address that the listener is bound to.
func (l *Listener) Addr() net.Addr { return l.addr }

// Serve accepts connections in the background until Close.
func (l *Listener) Serve() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.serving && !l.closed {
		l.serving = true
		l.socket.Serve()
	}
}

// Close stops accepting, but first accepts what the operating system has accepted
// already or, on Linux, is about to. Established connections finish the request in
// progress, are told that the connection ends, and are closed; those between two
// requests are closed in the background, spread over a few seconds. Close returns
// when nothing is accepted any more.
func (l *Listener) Close() {
	l.server.mu.Lock()
	if !l.server.closed {
		l.server.background.Go(func() { l.server.drainBehind(l) })
	}
	l.server.mu.Unlock()
	l.stop(l.server.ctx)
}

// stop ends accepting and waits for that, not longer than ctx allows.
//
// A socket that is closed resets the connections that it has not handed out, and
// those whose handshake it has begun, although their clients are connected as far
// as they know. So first it takes no new ones: their clients try again within a
// second, and meet whoever shares the port, or nobody.
func (l *Listener) stop(ctx context.Context) {
	l.origin.Drain(0)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	if l.serving {
		l.socket.Leave(ctx)
		l.socket.Stop()
	}
	l.close()
}

// abandon closes the socket, whatever is in its queue.
func (l *Listener) abandon() {
	l.origin.Drain(proxy.AllShares)
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.close()
	}
}

func (l *Listener) close() {
	l.closed = true
	l.socket.Close()
	close(l.stopped)
	l.server.mu.Lock()
	defer l.server.mu.Unlock()
	delete(l.server.listeners, l)
}
