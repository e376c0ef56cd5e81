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

// ones has 1 in each of its 8 bytes; c*ones has c in each.
const ones = 0x0101010101010101

// below and equal look at 8 bytes at once, see BenchmarkRequest. They set the top
// bit of each byte that is less than c (at most 0x80) or equal to it; the other
// bits mean nothing. Above a byte that is found, a borrow may set others wrongly:
// only the lowest one counts. Results may be or-ed, also with the bytes themselves
// to find those that are not ASCII.

func below(w uint64, c byte) uint64 { return (w - uint64(c)*ones) &^ w }

func equal(w uint64, c byte) uint64 { return below(w^uint64(c)*ones, 1) }

// lowest returns the index of the lowest byte that was found, 8 if there is none.
func lowest(found uint64) int { return bits.TrailingZeros64(found&(0x80*ones)) / 8 }

// indexControl returns the index of the first control byte (below 0x20, or 0x7f)
// at or after i, or len(p).
func indexControl(p []byte, i int) int {
	for ; i+8 <= len(p); i += 8 {
		w := binary.LittleEndian.Uint64(p[i:])
		if n := lowest(below(w, ' ') | equal(w, 0x7f)); n < 8 {
			return i + n
		}
	}
	for i < len(p) && p[i] >= ' ' && p[i] != 0x7f {
		i++
	}
	return i
}

// indexNotTarget returns the index of the first byte at or after i that no request
// target contains, or len(p).
func indexNotTarget(p []byte, i int) int {
	for ; i+8 <= len(p); i += 8 {
		w := binary.LittleEndian.Uint64(p[i:])
		if n := lowest(below(w, ' '+1) | equal(w, '#') | equal(w, 0x7f) | w); n < 8 {
			return i + n
		}
	}
	return skipClass(p, i, isTarget)
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

// foldEqual reports whether name equals lower, which is in lower case, when the
// case of ASCII letters is ignored.
func foldEqual(name []byte, lower string) bool {
	if len(name) != len(lower) {
		return false
	}
	for i, c := range name {
		if c != lower[i] && lowerCase(c) != lower[i] {
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
