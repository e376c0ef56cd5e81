package serve

import (
	"net"
	"runtime"
	"sync"
	"weak"
)

// listener knows the connections it has accepted. A gRPC server that is stopped
// waits for connections that have not said anything yet, for as long as they may
// take to begin; closing them here ends that.
//
// It hands out the connections as they are, and not in a wrapper that would notice when
// they are closed: gRPC has a buffer for each connection that it does not know, and
// shares a few among those that it does. Whoever has dropped one has closed it.
type listener struct {
	net.Listener
	mu   sync.Mutex
	open map[weak.Pointer[net.TCPConn]]struct{} // guarded by mu
}

func newListener(l net.Listener) *listener {
	return &listener{Listener: l, open: map[weak.Pointer[net.TCPConn]]struct{}{}}
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if c, ok := accepted.(*net.TCPConn); ok {
		l.remember(c)
	}
	return accepted, nil
}

func (l *listener) remember(c *net.TCPConn) {
	p := weak.Make(c)
	runtime.AddCleanup(c, l.forget, p)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[p] = struct{}{}
}

func (l *listener) forget(p weak.Pointer[net.TCPConn]) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, p)
}

// closeAll closes all connections.
func (l *listener) closeAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p := range l.open {
		if c := p.Value(); c != nil {
			_ = c.Close() // it is to end, whatever state it is in
		}
	}
}
