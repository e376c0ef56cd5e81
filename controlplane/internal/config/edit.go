package config

import (
	"fmt"
	"net/netip"

	"reverseproxy/proto/routetable"
)

// The walk over what is done with header fields and paths, endpoints that answer by
// themselves, and the proxies in front.

func (r *reader) trustedProxies(n node, at *path) {
	c := &r.config
	r.list(n, at, "address prefixes", inList(n, "write [10.0.0.0/8]"), func(item node, at *path) {
		var prefix netip.Prefix
		if _, ok := r.text(item, at, "an address prefix, such as 10.0.0.0/8", func(text string) (err error) {
			prefix, err = parsePrefix(text)
			return err
		}); ok {
			c.TrustedProxies = append(c.TrustedProxies, prefix.String())
		}
	})
	c.TrustedProxies = canonical(c.TrustedProxies)
	if len(c.TrustedProxies) > routetable.MaxTrustedProxies {
		r.problem(n, at, "there are %d prefixes; at most %d are allowed", len(c.TrustedProxies), routetable.MaxTrustedProxies)
	}
}

// parsePrefix reads an address prefix, or an address, which is the prefix of itself.
func parsePrefix(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err == nil && prefix.Masked() != prefix {
		return prefix, fmt.Errorf("%s has bits behind its first %d (did you mean %s?)", quote(text), prefix.Bits(), prefix.Masked())
	}
	if err == nil {
		text = prefix.String() // one way to write it
	}
	return prefix, routetable.CheckPrefix(text)
}
