package routetable

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// TrimHost returns the host of a Host field or authority: without its port and
// one dot at its end. It is empty when no host pattern can match it. Case is
// kept.
func TrimHost[T text](authority T) T {
	host := authority
	for i := len(host) - 1; i >= 0; i-- {
		if host[i] == ':' {
			host = host[:i]
			break
		}
		if host[i] < '0' || host[i] > '9' {
			break
		}
	}
	if n := len(host); n > 0 && host[n-1] == '.' {
		host = host[:n-1]
	}
	if len(host) > MaxHostBytes {
		return host[:0]
	}
	return host
}

// NormalizeHost returns the form in which hosts are compared: what TrimHost
// leaves, in lower case (ASCII only: no other letter can be part of a host).
func NormalizeHost(authority string) string {
	return string(AppendLower(nil, TrimHost(authority)))
}

// AppendLower appends s with A to Z in lower case.
func AppendLower[T text](dst []byte, s T) []byte {
	for i := range len(s) {
		dst = append(dst, lower(s[i]))
	}
	return dst
}

// IsLower reports whether s has no letter A to Z.
func IsLower[T text](s T) bool {
	for i := range len(s) {
		if 'A' <= s[i] && s[i] <= 'Z' {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// matchHost reports whether a normalized host matches the pattern: the host
// itself, or "*." and a suffix that one or more labels precede.
func matchHost(pattern, host string) bool {
	if suffix, ok := WildcardSuffix(pattern); ok {
		return len(host) > len(suffix) && strings.HasSuffix(host, suffix)
	}
	return pattern == host
}

// WildcardSuffix returns what a host must end in to match the pattern, such as
// ".example.com"; ok is false for an exact host.
func WildcardSuffix(pattern string) (suffix string, ok bool) {
	if strings.HasPrefix(pattern, "*.") {
		return pattern[1:], true
	}
	return "", false
}

// CheckHost says what is wrong with a host pattern of an endpoint, in wire form:
// a host name, an IPv4 address or an IPv6 address in brackets, in lower case,
// without a port; or "*." followed by a host name.
func CheckHost(pattern string) error {
	host, wildcard := strings.CutPrefix(pattern, "*.")
	switch {
	case host == "":
		return errors.New("is empty; it must be a host such as shop.example.com or *.example.com")
	case strings.Contains(host, "*"):
		return fmt.Errorf("%s has a * that is not its whole first label; write *.example.com", quote(pattern))
	case strings.HasSuffix(host, "."):
		return fmt.Errorf("%s ends in a dot; write it without", quote(pattern))
	case !IsLower(host):
		return fmt.Errorf("%s has upper-case letters; write %s", quote(pattern), quote(AppendLower(nil, pattern)))
	case host[0] == '[':
		if wildcard {
			return fmt.Errorf("%s is an address; a wildcard needs a host name", quote(pattern))
		}
		return checkIPv6(host)
	case strings.Contains(host, ":"):
		return fmt.Errorf("%s has a port or is an IPv6 address without brackets; hosts are matched without a port", quote(pattern))
	}
	return checkHostName(host)
}

// checkHostName accepts DNS names (RFC 1123 section 2.1), with the underscores
// that are met in practice, in either case, and so IPv4 addresses.
func checkHostName(host string) error {
	if len(host) > MaxHostBytes {
		return fmt.Errorf("%s has %d bytes; at most %d are allowed", quote(host), len(host), MaxHostBytes)
	}
	start := 0
	for i := 0; i <= len(host); i++ {
		if i < len(host) && host[i] != '.' {
			c := lower(host[i])
			switch {
			case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_':
				continue
			case c >= 0x80:
				return fmt.Errorf("%s has letters outside ASCII; write the xn-- form", quote(host))
			}
			return fmt.Errorf("%s is not a valid host: it contains %q", quote(host), host[i])
		}
		label := host[start:i]
		switch {
		case label == "":
			return fmt.Errorf("%s is not a valid host: it has an empty label", quote(host))
		case len(label) > 63:
			return fmt.Errorf("%s is not a valid host: a label has more than 63 bytes", quote(host))
		case label[0] == '-' || label[len(label)-1] == '-':
			return fmt.Errorf("%s is not a valid host: a label starts or ends with a hyphen", quote(host))
		}
		start = i + 1
	}
	return nil
}

// checkIPv6 accepts "[addr]" in the one way to write the address (RFC 5952),
// which is what clients send.
func checkIPv6(host string) error {
	inner, ok := strings.CutSuffix(host[1:], "]")
	if !ok {
		return fmt.Errorf("%s is not a valid host; an IPv6 address is written [addr], without a port", quote(host))
	}
	addr, err := netip.ParseAddr(inner)
	if err != nil || !addr.Is6() || addr.Zone() != "" {
		return fmt.Errorf("%s is not a valid IPv6 address", quote(host))
	}
	if want := addr.String(); want != inner {
		return fmt.Errorf("%s is not in the canonical form; write %s", quote(host), quote("["+want+"]"))
	}
	return nil
}
