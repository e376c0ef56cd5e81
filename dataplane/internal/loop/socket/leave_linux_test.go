package socket_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"reverseproxy/dataplane/internal/loop/socket"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// paths are the ways from a client to a listening socket: where the socket is bound
// and where the client connects to.
var paths = map[string]struct{ bound, dialed string }{
	"IPv4":                       {"127.0.0.1", "127.0.0.1"},
	"IPv6":                       {"::1", "::1"},
	"IPv4 to all addresses":      {"", "127.0.0.1"},
	"IPv6 to all addresses":      {"", "::1"},
	"IPv4 to all IPv4 addresses": {"0.0.0.0", "127.0.0.1"},
}

func onEachPath(t *testing.T, test func(t *testing.T, bound, dialed string)) {
	for name, p := range paths {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, p.bound, p.dialed)
		})
	}
}

// TestConnecting: a client whose connection is deferred is listed until it has sent
// something, and a client of another port is not.
func TestConnecting(t *testing.T) { onEachPath(t, testConnecting) }

func testConnecting(t *testing.T, bound, dialed string) {
	l, fd := listen(t, bound)
	deferLong(t, fd)
	if got := connecting(t, fd); len(got) != 0 {
		t.Errorf("got %v before there is a client", got)
	}
	silent := dial(t, l, dialed)
	other, otherFD := listen(t, bound)
	deferLong(t, otherFD)
	dial(t, other, dialed)

	got := connecting(t, fd)
	if _, listed := got[local(silent)]; !listed || len(got) != 1 {
		t.Fatalf("got %v, want %v", got, local(silent))
	}
	if _, err := silent.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	_ = l.SetDeadline(time.Now().Add(patience))
	c, err := l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for deadline := time.Now().Add(patience); len(got) != 0; got = connecting(t, fd) {
		if time.Now().After(deadline) {
			t.Fatalf("got %v after the connection was accepted", got)
		}
	}
}

// TestConnectingManyClients: the list comes in several datagrams.
func TestConnectingManyClients(t *testing.T) {
	l, fd := listen(t, "127.0.0.1")
	deferLong(t, fd)
	const clients = 500
	for range clients {
		dial(t, l, "127.0.0.1")
	}
	if got := connecting(t, fd); len(got) != clients {
		t.Errorf("got %d clients, want %d", len(got), clients)
	}
}

// TestLeaveWaitsForTheSilent: when a socket has left, its clients are in the queue,
// those too whom the kernel had kept to itself.
func TestLeaveWaitsForTheSilent(t *testing.T) { onEachPath(t, testLeaveWaitsForTheSilent) }

func testLeaveWaitsForTheSilent(t *testing.T, bound, dialed string) {
	l, fd := listen(t, bound)
	waiting := map[netip.AddrPort]bool{}
	for range 5 {
		waiting[local(dial(t, l, dialed))] = true
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	socket.Leave(ctx, fd)
	for len(waiting) > 0 {
		client, err := accept(fd)
		if err != nil {
			t.Fatalf("%d clients are not in the queue: %v", len(waiting), err)
		}
		if !waiting[client] {
			t.Errorf("%v is a stranger", client)
		}
		delete(waiting, client)
	}
}

// TestLeaveIgnoresNewClients: they are neither connected nor refused.
func TestLeaveIgnoresNewClients(t *testing.T) {
	l, fd := listen(t, "127.0.0.1")
	socket.Leave(t.Context(), fd)
	d := net.Dialer{Timeout: 50 * time.Millisecond}
	c, err := d.Dial("tcp", l.Addr().String())
	if err == nil {
		_ = c.Close()
	}
	if timeout, ok := errors.AsType[net.Error](err); !ok || !timeout.Timeout() {
		t.Errorf("got %v, want a timeout", err)
	}
}

// TestLeaveEndsWithItsContext: nobody waits for the silent who does not want to.
func TestLeaveEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	// In a second the kernel hands over a silent client in any case, and this test
	// may be held up that long; but not each time.
	for range 5 {
		l, fd := listen(t, "127.0.0.1")
		dial(t, l, "127.0.0.1")
		socket.Leave(ctx, fd)
		if _, err := accept(fd); err == unix.EAGAIN {
			return
		}
	}
	t.Error("the silent client was waited for")
}

// listen returns a socket that defers connections.
func listen(t *testing.T, address string) (*net.TCPListener, int) {
	t.Helper()
	l, err := socket.Listen(t.Context(), address, 0)
	if errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	raw, err := l.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	fd := -1
	if err := raw.Control(func(n uintptr) { fd = int(n) }); err != nil {
		t.Fatal(err)
	}
	socket.DeferAccept(fd)
	return l, fd
}

// deferLong makes silent clients stay silent clients for the length of a test.
func deferLong(t *testing.T, fd int) {
	t.Helper()
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, int(patience/time.Second)); err != nil {
		t.Fatal(err)
	}
}

func dial(t *testing.T, l *net.TCPListener, address string) net.Conn {
	t.Helper()
	to := netip.AddrPortFrom(netip.MustParseAddr(address), l.Addr().(*net.TCPAddr).AddrPort().Port())
	c, err := net.DialTimeout("tcp", to.String(), patience)
	if errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// connecting skips the test where nobody is told, as in some containers.
func connecting(t *testing.T, fd int) map[netip.AddrPort]struct{} {
	t.Helper()
	got, err := socket.Connecting(fd)
	for _, untold := range []error{syscall.EPERM, syscall.EACCES, syscall.ENOENT, syscall.EAFNOSUPPORT, syscall.EPROTONOSUPPORT} {
		if errors.Is(err, untold) {
			t.Skip(err)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// accept takes a connection from the queue and returns whose it was.
func accept(fd int) (netip.AddrPort, error) {
	c, addr, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
	if err != nil {
		return netip.AddrPort{}, err
	}
	defer unix.Close(c)
	switch a := addr.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)), nil
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port)), nil
	}
	return netip.AddrPort{}, unix.EAFNOSUPPORT
}

func local(c net.Conn) netip.AddrPort { return c.LocalAddr().(*net.TCPAddr).AddrPort() }
