//go:build unix

package socket

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Reserve keeps a port for Listen, until it is closed. The socket is bound and does not
// listen: nobody can connect to it, and of other programs only those can take the port
// that may share it. An empty address is all.
func Reserve(address string, port uint16) (io.Closer, error) {
	if address == "" {
		fd, err := bind(unix.AF_INET6, &unix.SockaddrInet6{Port: int(port)})
		if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL) {
			return bind(unix.AF_INET, &unix.SockaddrInet4{Port: int(port)}) // there is no IPv6 here
		}
		return fd, err
	}
	a, err := netip.ParseAddr(address)
	switch {
	case err != nil:
		return nil, fmt.Errorf("reserve a port: %w", err)
	case a.Is4():
		return bind(unix.AF_INET, &unix.SockaddrInet4{Port: int(port), Addr: a.As4()})
	}
	return bind(unix.AF_INET6, &unix.SockaddrInet6{Port: int(port), Addr: a.As16()})
}

// reservation is the socket.
type reservation int

// Close implements io.Closer.
func (fd reservation) Close() error { return os.NewSyscallError("close", unix.Close(int(fd))) }

func bind(family int, to unix.Sockaddr) (io.Closer, error) {
	fd, err := unix.Socket(family, unix.SOCK_STREAM, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	unix.CloseOnExec(fd)
	// Without SO_REUSEADDR, which would let anybody take the port who sets it too.
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	if err == nil && family == unix.AF_INET6 {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0)
	}
	if err != nil {
		return nil, errors.Join(os.NewSyscallError("setsockopt", err), reservation(fd).Close())
	}
	if err := unix.Bind(fd, to); err != nil {
		return nil, errors.Join(os.NewSyscallError("bind", err), reservation(fd).Close())
	}
	return reservation(fd), nil
}
