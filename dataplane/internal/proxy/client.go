package proxy

import (
	"bytes"
	"net/netip"
	"unsafe"

	"reverseproxy/dataplane/internal/http1"
	"reverseproxy/dataplane/internal/table"
)

// maxAddress is the length of the longest address as a text.
const maxAddress = len("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")

// clientAddress returns the address of the client whose request is in progress, in
// canonical form: that of the peer or, when the peer is a trusted proxy, what
// X-Forwarded-For says. The bytes are valid until the end of the request.
func (c *Conn) clientAddress() []byte {
	x := c.x
	if x.addressSize == 0 {
		x.addressSize = uint8(copy(x.address[:], c.remote))
	}
	return x.address[:x.addressSize]
}

// isTrusted reports whether the peer of a client connection is a trusted proxy. It is
// looked up once for each connection and set.
func (c *Conn) isTrusted(proxies *table.Prefixes) bool {
	if c.trustedBy != proxies.Number {
		peer, err := netip.ParseAddr(c.remote)
		c.trusted, c.trustedBy = err == nil && proxies.Contains(peer), proxies.Number
	}
	return c.trusted
}

// lookBehind finds out whether the request in e.req comes from a trusted proxy, and
// whose it is then.
func (e *Engine) lookBehind(c *Conn, trusted *table.Prefixes) {
	if c.isTrusted(trusted) {
		c.x.trusted = true
		c.x.forwardedFor(&e.req, trusted)
	}
}

// forwardedFor takes the client's address from the X-Forwarded-For of a trusted
// proxy. Each proxy has appended the address of its peer, so the last one was seen
// by somebody who is trusted, and so on, up to the first address that is not that
// of a trusted proxy: what is before it, anybody may have written. The same goes for
// what is before something that is no address.
func (x *request) forwardedFor(r *http1.Request, trusted *table.Prefixes) {
	for i := len(r.Fields) - 1; i >= 0; i-- {
		f := &r.Fields[i]
		if f.ID != http1.XForwardedFor || f.Hop {
			continue
		}
		for rest := f.Value.Of(r.Raw); len(rest) > 0; {
			comma := bytes.LastIndexByte(rest, ',')
			element := bytes.Trim(rest[comma+1:], " \t")
			rest = rest[:max(comma, 0)]
			if len(element) == 0 {
				continue
			}
			address, ok := parseForwarded(element)
			if !ok {
				return
			}
			x.addressSize = uint8(len(address.AppendTo(x.address[:0])))
			if !trusted.Contains(address) {
				return
			}
		}
	}
}

// parseForwarded reads an element of X-Forwarded-For: an address, to which some
// proxies add a port.
func parseForwarded(element []byte) (address netip.Addr, ok bool) {
	switch colon := bytes.LastIndexByte(element, ':'); {
	case element[0] == '[': // [2001:db8::1] or [2001:db8::1]:80
		end := bytes.IndexByte(element, ']')
		if end < 0 || end+1 < len(element) && element[end+1] != ':' {
			return address, false
		}
		element = element[1:end]
	case colon >= 0 && bytes.IndexByte(element, ':') == colon: // 192.0.2.1:80
		element = element[:colon]
	}
	// A copy would be allocated for each (TestKeepAliveRequestDoesNotAllocate). ParseAddr
	// keeps its argument in its error only, which is not kept.
	address, err := netip.ParseAddr(unsafe.String(unsafe.SliceData(element), len(element)))
	return address.Unmap(), err == nil && address.Zone() == ""
}
