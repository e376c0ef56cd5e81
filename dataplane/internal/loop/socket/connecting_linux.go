package socket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// maxConnecting is how many clients are listed at most: what four sockets of a port
// have room for, by default.
const maxConnecting = 4 * 4096

var (
	errTooMany = fmt.Errorf("more than %d handshakes in progress", maxConnecting)
	errGarbled = errors.New("sock_diag: not a netlink message")
)

// Connecting lists the clients whose handshake with the port of a listening socket
// is in progress (SYN_RECV), with that socket or another one of the port and of the
// same address family. Those whose connection is deferred are among them, silent as
// they are. A client is listed until its connection is in the queue of the socket.
//
// The kernel is asked over netlink: see sock_diag(7). Everybody may ask, but not
// every container lets them, and not every kernel answers. It has answered by the
// time it has been asked, so this does not block.
func Connecting(fd int) (map[netip.AddrPort]struct{}, error) {
	family, port, err := bound(fd)
	if err != nil {
		return nil, err
	}
	diag, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer unix.Close(diag)
	if err = unix.SetsockoptTimeval(diag, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &answerTime); err != nil {
		return nil, os.NewSyscallError("setsockopt", err)
	}
	if err = unix.Sendto(diag, question(family, port), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, os.NewSyscallError("sendto", err)
	}
	clients := map[netip.AddrPort]struct{}{}
	// The kernel sends as much at once as there is room for, up to 32 KiB.
	for buf := make([]byte, 32<<10); ; {
		n, _, err := unix.Recvfrom(diag, buf, unix.MSG_TRUNC)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, os.NewSyscallError("recvfrom", err)
		case n > len(buf):
			return nil, errGarbled
		}
		if done, err := answers(buf[:n], clients); done || err != nil {
			return clients, err
		}
	}
}

// answerTime is there so that not even a kernel that owes an answer is waited for.
var answerTime = unix.NsecToTimeval(int64(100 * time.Millisecond))

// bound returns the address family and the port of a socket.
func bound(fd int) (family uint8, port uint16, err error) {
	addr, err := unix.Getsockname(fd)
	if err != nil {
		return 0, 0, os.NewSyscallError("getsockname", err)
	}
	switch a := addr.(type) {
	case *unix.SockaddrInet4:
		return unix.AF_INET, uint16(a.Port), nil
	case *unix.SockaddrInet6:
		return unix.AF_INET6, uint16(a.Port), nil
	}
	return 0, 0, unix.EAFNOSUPPORT
}

// What goes to the kernel and comes back, from linux/inet_diag.h. Ports and
// addresses are in network byte order.
type (
	// inetDiagSockID is struct inet_diag_sockid.
	inetDiagSockID struct {
		LocalPort, RemotePort [2]byte
		Local, Remote         [16]byte // IPv4: the first four bytes
		Interface             uint32
		Cookie                [2]uint32
	}
	// inetDiagRequest is struct inet_diag_req_v2.
	inetDiagRequest struct {
		Family, Protocol, Extensions, _ uint8
		States                          uint32
		ID                              inetDiagSockID
	}
	// inetDiagAnswer is the beginning of struct inet_diag_msg.
	inetDiagAnswer struct {
		Family, State, Timer, Retransmissions uint8
		ID                                    inetDiagSockID
	}
)

// question is the request for all sockets in the state SYN_RECV that have a local
// port.
func question(family uint8, port uint16) []byte {
	q := inetDiagRequest{Family: family, Protocol: unix.IPPROTO_TCP, States: 1 << unix.BPF_TCP_SYN_RECV}
	binary.BigEndian.PutUint16(q.ID.LocalPort[:], port)
	h := unix.NlMsghdr{Type: unix.SOCK_DIAG_BY_FAMILY, Flags: unix.NLM_F_REQUEST | unix.NLM_F_DUMP}
	h.Len = uint32(binary.Size(h) + binary.Size(q))
	b, _ := binary.Append(nil, binary.NativeEndian, h) // fails for types without a fixed size
	b, _ = binary.Append(b, binary.NativeEndian, q)
	return b
}

// answers adds the clients of a datagram from the kernel, and reports whether it was
// the last one.
func answers(b []byte, to map[netip.AddrPort]struct{}) (done bool, err error) {
	for len(b) > 0 {
		var h unix.NlMsghdr
		if _, err := binary.Decode(b, binary.NativeEndian, &h); err != nil || h.Len < unix.SizeofNlMsghdr || int(h.Len) > len(b) {
			return false, errGarbled
		}
		payload := b[unix.SizeofNlMsghdr:h.Len]
		b = b[min((int(h.Len)+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1), len(b)):]
		switch h.Type {
		case unix.NLMSG_DONE, unix.NLMSG_ERROR:
			var status int32 // 0 or a negated errno
			if _, err := binary.Decode(payload, binary.NativeEndian, &status); err != nil {
				return false, errGarbled
			}
			if status < 0 {
				return false, os.NewSyscallError("sock_diag", unix.Errno(-status))
			}
			return true, nil
		case unix.SOCK_DIAG_BY_FAMILY:
			var a inetDiagAnswer
			if _, err := binary.Decode(payload, binary.NativeEndian, &a); err != nil {
				return false, errGarbled
			}
			if len(to) == maxConnecting {
				return false, errTooMany
			}
			to[client(a)] = struct{}{}
		}
	}
	return false, nil
}

// client returns the address of the other side. Those who reach an IPv6 socket over
// IPv4 have one of IPv4.
func client(a inetDiagAnswer) netip.AddrPort {
	ip := netip.AddrFrom16(a.ID.Remote).Unmap()
	if a.Family == unix.AF_INET {
		ip = netip.AddrFrom4([4]byte(a.ID.Remote[:4]))
	}
	return netip.AddrPortFrom(ip, binary.BigEndian.Uint16(a.ID.RemotePort[:]))
}
