package socket

import (
	"context"
	"maps"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// deferTime is how long the kernel keeps a new connection to itself while its
	// client has not sent anything. It is the shortest time that the kernel knows,
	// and the one after which it sends its part of the handshake again.
	deferTime = time.Second
	// silenceTime is how long a client that was silent while connections were
	// deferred may take to be handed over when they no longer are: it answers what
	// the kernel sends again.
	silenceTime = deferTime + deferTime/8
	// handshakeTime is how long connections that are being made when a socket leaves
	// have to become established: a round trip, to the far side of the world.
	handshakeTime = 200 * time.Millisecond
)

// DeferAccept has the kernel keep a new connection to itself until its client has
// sent something, but not for much longer than a second: clients of HTTP speak
// first, and a connection that comes with its request costs one wake-up and not
// two. A kernel that cannot hands it over at once.
func DeferAccept(fd int) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, int(deferTime/time.Second))
}

// Leave makes a listening socket ignore requests for connections and returns when
// the connections that had begun to be made are in its queue, or when ctx ends.
// They must be accepted meanwhile as ever, and those left in the queue afterwards.
//
// Silent clients of a socket that defers are not in the queue, and would be reset.
// First they are no longer deferred: the kernel sends its part of the handshake
// again within deferTime, and the answer puts them into the queue. Only then are
// new clients ignored, which costs those whom the kernel does not give to another
// socket of the port a second: so this is short.
func Leave(ctx context.Context, fd int) {
	if undefer(fd) {
		awaitHandshakes(ctx, fd, silenceTime)
	}
	if ignoreSYN(fd) {
		awaitHandshakes(ctx, fd, handshakeTime)
	}
}

// undefer reports whether connections were deferred; they are not any more.
func undefer(fd int) bool {
	seconds, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT)
	return err == nil && seconds > 0 && unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 0) == nil
}

// ignoreSYN makes a listening socket drop requests for connections, while the
// handshakes that have begun are completed. Reports whether it could.
//
// The filter sees a segment from its TCP header on and keeps everything but a SYN
// without ACK. Connections inherit it, on which there is no such segment.
func ignoreSYN(fd int) bool {
	const flags, syn, ack = 13, 0x02, 0x10
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: flags},
		{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: syn | ack},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: syn, Jt: 0, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &program) == nil
}

const (
	// moment is how long the kernel may take for a segment that it has begun to look
	// at. By then most handshakes on the same machine are over, too.
	moment = 2 * time.Millisecond
	// pollTime is the shortest time between two looks at the handshakes. A look goes
	// through all TCP sockets of the machine, so the longer it takes the rarer they
	// are: after each pollPart of the time that has passed.
	pollTime = time.Millisecond
	pollPart = 16
)

// awaitHandshakes waits until the connections that are being made are established,
// until the time most has passed, or ctx has ended. Where the kernel does not say
// which they are, it waits for all of that time.
//
// Which of the sockets of a port they belong to cannot be told, and on a busy port
// there always are some: so only those are waited for that there are now.
func awaitHandshakes(ctx context.Context, fd int, most time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	began := time.Now()
	pause(ctx, moment)
	waiting, err := Connecting(fd)
	for err == nil && len(waiting) > 0 && ctx.Err() == nil {
		pause(ctx, max(pollTime, time.Since(began)/pollPart))
		var now map[netip.AddrPort]struct{}
		now, err = Connecting(fd)
		maps.DeleteFunc(waiting, func(c netip.AddrPort, _ struct{}) bool {
			_, still := now[c]
			return !still
		})
	}
	if err != nil {
		<-ctx.Done()
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
