//go:build unix

// Package socket makes listening sockets the way both drivers need them.
package socket

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Listen binds a TCP socket and listens. Other sockets, of other processes of the
// same user too, may share the port. What is accepted sends small segments at once
// (TCP_NODELAY) and is not probed (the session has deadlines of its own).
func Listen(ctx context.Context, address string, port uint16) (*net.TCPListener, error) {
	config := net.ListenConfig{Control: options, KeepAlive: -1}
	config.SetMultipathTCP(false) // whose sockets know fewer options: see Leave
	l, err := config.Listen(ctx, "tcp", net.JoinHostPort(address, strconv.Itoa(int(port))))
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}

func options(_, _ string, raw syscall.RawConn) error {
	var failed error
	err := raw.Control(func(fd uintptr) {
		failed = errors.Join(
			os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)),
			os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)))
	})
	return errors.Join(err, failed)
}

// Remote returns a client's address as X-Forwarded-For has it.
func Remote(a netip.Addr) string {
	if !a.IsValid() {
		return "unknown"
	}
	return a.Unmap().String()
}
