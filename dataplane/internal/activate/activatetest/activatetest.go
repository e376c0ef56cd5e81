// Package activatetest holds what tests of the packages around activate need: a
// small listener that stands in for the proxy, free ports and valid route
// tables.
package activatetest

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"reverseproxy/dataplane/internal/activate"
	"reverseproxy/dataplane/internal/backend"
	"reverseproxy/dataplane/internal/loop/socket"
	"reverseproxy/dataplane/internal/metrics"
	"reverseproxy/dataplane/internal/table"
	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// share makes a socket that lets others use its port.
var share = net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
	var err error
	if cerr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}); cerr != nil {
		return cerr
	}
	return err
}}

// Port returns a port of 127.0.0.1 that nobody else gets before the test ends,
// and that a listener with SO_REUSEPORT can open.
func Port(t testing.TB) uint16 {
	t.Helper()
	// Bound, but not listening: it takes no connections away.
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.CloseOnExec(fd)
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return uint16(sa.(*unix.SockaddrInet4).Port)
}

// TakenPort returns a port that another program listens on until release.
func TakenPort(t testing.TB) (port uint16, release func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return netip.MustParseAddrPort(l.Addr().String()).Port(), func() { l.Close() }
}

// Table returns a valid route table with one endpoint, /a, /b and so on, for
// each backend URL, and its version.
func Table(port uint16, urls ...string) (*routetablev1.RouteTable, string) {
	rt := &routetablev1.RouteTable{
		Port: uint32(port),
		Limits: &routetablev1.Limits{
			MaxHeadBytes: 64 << 10, MaxHeaderCount: 100, MaxUriBytes: 8 << 10,
			HeaderTimeout: durationpb.New(10 * time.Second), IdleTimeout: durationpb.New(time.Minute),
			MaxConnections: 1000,
		},
	}
	for i, url := range urls {
		name := "/" + string(rune('a'+i))
		rt.Endpoints = append(rt.Endpoints, &routetablev1.Endpoint{
			Name: name,
			Path: &routetablev1.Endpoint_Exact{Exact: name},
			Pool: []*routetablev1.Backend{{Url: url, Weight: 1}},
			Timeouts: &routetablev1.Timeouts{
				Connect: durationpb.New(time.Second), Response: durationpb.New(30 * time.Second), Idle: durationpb.New(90 * time.Second),
			},
		})
	}
	return rt, routetable.Version(rt)
}

// Encode returns a route table as it comes from the control plane.
func Encode(t testing.TB, rt *routetablev1.RouteTable) []byte {
	t.Helper()
	encoded, err := proto.Marshal(rt)
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}

// Options returns options with which an activator serves on 127.0.0.1 with
// Listeners; the test adds what it needs and a logger.
func Options(t testing.TB) activate.Options {
	t.Helper()
	live := new(table.Live)
	var mu sync.Mutex
	var opened []*Listener
	t.Cleanup(func() {
		mu.Lock()
		defer mu.Unlock()
		for _, l := range opened {
			l.Close()
		}
	})
	return activate.Options{
		Address: "127.0.0.1",
		Live:    live,
		State:   &table.State{Backends: backend.NewRegistry(), Metrics: metrics.NewSet(1)},
		Reserve: socket.Reserve,
		Open: func(address string, port uint16) (activate.Listener, error) {
			l, err := share.Listen(context.Background(), "tcp", net.JoinHostPort(address, strconv.Itoa(int(port))))
			if err != nil {
				return nil, err
			}
			mu.Lock()
			defer mu.Unlock()
			opened = append(opened, &Listener{l: l, live: live})
			return opened[len(opened)-1], nil
		},
	}
}

// Listener answers each connection with the version in force.
type Listener struct {
	l    net.Listener
	live *table.Live
	once sync.Once
	g    sync.WaitGroup
}

// Serve implements activate.Listener.
func (l *Listener) Serve() {
	l.g.Go(func() {
		for {
			c, err := l.l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, l.live.Load().Version)
			c.Close()
		}
	})
}

// Addr implements activate.Listener.
func (l *Listener) Addr() net.Addr { return l.l.Addr() }

// Close implements activate.Listener.
func (l *Listener) Close() {
	l.once.Do(func() { l.l.Close() })
	l.g.Wait()
}
