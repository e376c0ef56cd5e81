package routetable

import (
	"fmt"
	"net/netip"
)

// MaxTrustedProxies is the most prefixes of trusted proxies.
const MaxTrustedProxies = 10_000

// CheckPrefix says what is wrong with an address prefix, in wire form.
func CheckPrefix(prefix string) error {
	p, err := netip.ParsePrefix(prefix)
	switch {
	case err != nil:
		return fmt.Errorf("%s is not an address prefix such as 10.0.0.0/8 or 2001:db8::/32", quote(prefix))
	case p.Addr().Is4In6():
		return fmt.Errorf("%s is an IPv4 address in the form of an IPv6 one; write it as IPv4", quote(prefix))
	case p.Masked().String() != prefix:
		return fmt.Errorf("%s is not in the canonical form; write %s", quote(prefix), quote(p.Masked().String()))
	}
	return nil
}

func (v *validation) trustedProxies(list []string) {
	if len(list) > MaxTrustedProxies {
		v.report("trusted_proxies", nil, "has %d prefixes; at most %d are allowed", len(list), MaxTrustedProxies)
	}
	v.sorted("trusted_proxies", nil, list, CheckPrefix)
}
