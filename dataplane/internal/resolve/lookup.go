package resolve

import (
	"context"
	"net"
	"net/netip"
)

// With returns a Lookup that asks a resolver of package net: the hosts file, then
// DNS.
func With(r *net.Resolver) func(ctx context.Context, host string) ([]netip.Addr, error) {
	return func(ctx context.Context, host string) ([]netip.Addr, error) {
		return r.LookupNetIP(ctx, "ip", host)
	}
}

// Server returns a resolver that asks the DNS server at addr (host:port) instead
// of those of the system.
func Server(addr string) *net.Resolver {
	dialer := &net.Dialer{}
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, network, addr)
	}}
}
