package http1

import (
	"encoding/binary"
	"math/bits"
)

// Character classes, one bit each in class.
const (
	isToken  = 1 << iota // tchar, RFC 9110 section 5.6.2
	isTarget             // visible ASCII without "#", which no request target contains
	isHost               // what a reg-name may be made of, see validAuthority
	isQuoted             // qdtext, RFC 9110 section 5.6.4
	isValue              // field-vchar, SP and HTAB, RFC 9110 section 5.5
	isDigit
)

var class = func() (t [256]uint8) {
	set := func(bit uint8, chars string) {
		for i := range len(chars) {
			t[chars[i]] |= bit
		}
	}
	const (
		digits  = "0123456789"
		letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	)
	set(isDigit, digits)
	set(isToken, digits+letters+"!#$%&'*+-.^_`|~")
	set(isHost, digits+letters+"-._~"+"!$&'()*+;=")
	for c := range 256 {
		if c > ' ' && c < 0x7f && c != '#' {
			t[c] |= isTarget
		}
		if c == '\t' || c >= ' ' && c != 0x7f {
			t[c] |= isValue
			if c != '"' && c != '\\' {
				t[c] |= isQuoted
			}
		}
	}
	return t
}()

// skipClass returns the index of the first byte at or after i that is not of the
// class, or len(p).
func skipClass(p []byte, i int, bit uint8) int {
	for i < len(p) && class[p[i]]&bit != 0 {
		i++
	}
	return i
}

// indexControl returns the index of the first control byte (below 0x20, or 0x7f)
// at or after i, or len(p). It looks at 8 bytes at a time: values are most of a
// head's bytes (BenchmarkRequest).
func indexControl(p []byte, i int) int {
	const ones = 0x0101010101010101
	for ; i+8 <= len(p); i += 8 {
		w := binary.LittleEndian.Uint64(p[i:])
		del := w ^ 0x7f*ones
		// In each term the lowest byte that has its top bit set is exact; a
		// borrow makes false ones only above it.
		if m := ((w-0x20*ones)&^w | (del-ones)&^del) & (0x80 * ones); m != 0 {
			return i + bits.TrailingZeros64(m)/8
		}
	}
	for i < len(p) && p[i] >= ' ' && p[i] != 0x7f {
		i++
	}
	return i
}

// trim returns q[start:end] without the white space around it (OWS).
func trim(q []byte, start, end int) Span {
	for start < end && (q[start] == ' ' || q[start] == '\t') {
		start++
	}
	for start < end && (q[end-1] == ' ' || q[end-1] == '\t') {
		end--
	}
	return span(start, end)
}

// foldEqual reports whether name equals lower, which is in lower case, when
// letter case is ignored. Setting bit 5 of a name's byte changes nothing but
// letters as long as name is a token or lower consists of letters and "-".
func foldEqual(name []byte, lower string) bool {
	if len(name) != len(lower) {
		return false
	}
	for i, c := range name {
		if c != lower[i] && (c < 'A' || c > 'Z' || c|0x20 != lower[i]) {
			return false
		}
	}
	return true
}

// foldEqualBytes is foldEqual for two names of any case.
func foldEqualBytes(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i, c := range a {
		if lowerCase(c) != lowerCase(b[i]) {
			return false
		}
	}
	return true
}

func lowerCase(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		c |= 0x20
	}
	return c
}

// parseDecimal reads 1*DIGIT. When the number does not fit, overflow is set.
func parseDecimal(p []byte) (n int64, overflow, ok bool) {
	for _, c := range p {
		if class[c]&isDigit == 0 {
			return 0, false, false
		}
		d := int64(c - '0')
		if n > (1<<63-1-d)/10 {
			overflow = true
		}
		n = n*10 + d
	}
	return n, overflow, len(p) > 0
}
