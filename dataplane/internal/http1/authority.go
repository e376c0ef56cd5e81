package http1

import "bytes"

// validAuthority reports whether a is uri-host [":" port] (RFC 9110 section 7.2,
// RFC 3986 section 3.2) with a host that is not empty, and whether it has a port
// number.
//
// Narrower than the grammar: no comma, since a list of two hosts looks like that
// (RFC 9110 section 5.3); no percent-encoding, since peers differ in whether they
// decode it; of IP literals only IPv6 addresses, since there are no others; a port
// of at most five digits that is a port number.
func validAuthority(a []byte) (ok, port bool) {
	var rest []byte
	if len(a) > 0 && a[0] == '[' {
		end := bytes.IndexByte(a, ']')
		if end < 0 || !validIPv6(a[1:end]) {
			return false, false
		}
		rest = a[end+1:]
	} else {
		end := skipClass(a, 0, isHost)
		if end == 0 {
			return false, false
		}
		rest = a[end:]
	}
	if len(rest) == 0 {
		return true, false
	}
	digits := rest[1:]
	if rest[0] != ':' || len(digits) > 5 {
		return false, false
	}
	if len(digits) == 0 {
		return true, false
	}
	n, _, ok := parseDecimal(digits)
	return ok && n <= 65535, true
}

// validIPv6 reports whether a is an IPv6address (RFC 3986 section 3.2.2). Zones
// are not part of it.
func validIPv6(a []byte) bool {
	groups := 0    // of 16 bits
	short := false // seen "::"
	if len(a) >= 2 && a[0] == ':' && a[1] == ':' {
		short = true
		a = a[2:]
		if len(a) == 0 {
			return true
		}
	}
	for {
		n := 0
		for n < len(a) && n < 5 && hexDigit(a[n]) >= 0 {
			n++
		}
		if n < len(a) && a[n] == '.' {
			groups += 2
			return validIPv4(a) && enough(groups, short)
		}
		if n == 0 || n > 4 {
			return false
		}
		groups++
		a = a[n:]
		if len(a) == 0 {
			return enough(groups, short)
		}
		if a[0] != ':' || groups == 8 {
			return false
		}
		a = a[1:]
		if len(a) > 0 && a[0] == ':' {
			if short {
				return false
			}
			short = true
			a = a[1:]
			if len(a) == 0 {
				return enough(groups, short)
			}
		}
	}
}

// enough reports whether an IPv6 address has the right number of groups; "::" is
// at least one.
func enough(groups int, short bool) bool {
	return groups == 8 && !short || groups < 8 && short
}

// validIPv4 reports whether a is an IPv4address (RFC 3986 section 3.2.2).
func validIPv4(a []byte) bool {
	for part := range 4 {
		n := skipClass(a, 0, isDigit)
		if n == 0 || n > 3 || n > 1 && a[0] == '0' {
			return false
		}
		if v, _, _ := parseDecimal(a[:n]); v > 255 {
			return false
		}
		a = a[n:]
		if part < 3 {
			if len(a) == 0 || a[0] != '.' {
				return false
			}
			a = a[1:]
		}
	}
	return len(a) == 0
}

// hexDigit returns the value of a hexadecimal digit, or -1.
func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	default:
		return -1
	}
}
