package backend

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
)

// Name is a backend's address host:port whose host is a name, and the addresses
// that the name stands for. Package resolve keeps them current. Any goroutine may
// use it.
type Name struct {
	host, port string
	addresses  atomic.Pointer[[]string]
}

// newName returns nil when addr needs no resolving: its host is an IP address, or
// localhost, which every dial resolves anew, because a server may listen on only
// one of 127.0.0.1 and ::1.
func newName(addr string) *Name {
	if _, err := netip.ParseAddrPort(addr); err == nil {
		return nil
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil || strings.TrimSuffix(host, ".") == "localhost" {
		return nil
	}
	return &Name{host: host, port: port}
}

// Host returns the name without the port.
func (n *Name) Host() string { return n.host }

// Addresses returns the name's addresses, each as ip:port, sorted. known is false
// until the first attempt to find them has ended; after it there are none when
// they have never been found.
func (n *Name) Addresses() (list []string, known bool) {
	p := n.addresses.Load()
	if p == nil {
		return nil, false
	}
	return *p, true
}

// Set records the addresses and reports whether they are others than before.
func (n *Name) Set(found []netip.Addr) bool {
	found = slices.Clone(found)
	// Servers give them in any order; the members of a pool stay where they are.
	slices.SortFunc(found, netip.Addr.Compare)
	list := make([]string, 0, len(found))
	for _, a := range slices.Compact(found) {
		list = append(list, net.JoinHostPort(a.String(), n.port))
	}
	before, known := n.Addresses()
	if known && slices.Equal(before, list) {
		return false
	}
	n.addresses.Store(&list)
	return true
}
