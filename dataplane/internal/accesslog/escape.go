package accesslog

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

// What comes from outside is escaped so that a line stays one line, a value stays
// between its quotes, and a terminal that shows the log is not controlled by it.
// The output of both forms is printable ASCII and nothing else.

// text is what values come as.
type text interface{ ~string | ~[]byte }

// appendJSON appends the inside of a JSON string (RFC 8259 section 7). Bytes that
// are not UTF-8 become U+FFFD, one each: there is no other way in JSON.
func appendJSON[T text](dst []byte, value T) []byte {
	v, cut := shorten(value)
	dst, v = appendPlain(dst, v)
	for len(v) > 0 {
		switch c := v[0]; {
		case isPlain(c):
			dst = append(dst, c)
			v = v[1:]
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
			v = v[1:]
		case c == '\t':
			dst = append(dst, '\\', 't')
			v = v[1:]
		case c < utf8.RuneSelf:
			dst = appendUnit(dst, uint16(c))
			v = v[1:]
		default:
			var r rune
			r, v = firstRune(v)
			if r > 0xffff {
				// Two UTF-16 code units.
				r -= 0x10000
				dst = appendUnit(dst, uint16(0xd800+r>>10))
				r = 0xdc00 + r&0x3ff
			}
			dst = appendUnit(dst, uint16(r))
		}
	}
	if cut {
		dst = append(dst, "..."...)
	}
	return dst
}

// appendUnit appends a UTF-16 code unit.
func appendUnit(dst []byte, u uint16) []byte {
	const digits = "0123456789abcdef"
	return append(dst, '\\', 'u', digits[u>>12], digits[u>>8&15], digits[u>>4&15], digits[u&15])
}

// firstRune takes the first character, U+FFFD for a byte that is none.
func firstRune[T text](v T) (rune, T) {
	var head [utf8.UTFMax]byte
	r, n := utf8.DecodeRune(head[:copy(head[:], v)])
	return r, v[n:]
}

// appendCLF appends a value as Apache and nginx do: each byte that is no
// printable ASCII, and '"' and '\', as \xHH.
func appendCLF[T text](dst []byte, value T) []byte {
	const digits = "0123456789ABCDEF"
	v, cut := shorten(value)
	dst, v = appendPlain(dst, v)
	for len(v) > 0 {
		if c := v[0]; isPlain(c) {
			dst = append(dst, c)
		} else {
			dst = append(dst, '\\', 'x', digits[c>>4], digits[c&15])
		}
		v = v[1:]
	}
	if cut {
		dst = append(dst, "..."...)
	}
	return dst
}

// appendCLFOrDash appends "-" for a value that is not there.
func appendCLFOrDash[T text](dst []byte, value T) []byte {
	if len(value) == 0 {
		return append(dst, '-')
	}
	return appendCLF(dst, value)
}

func shorten[T text](v T) (_ T, cut bool) {
	if len(v) > MaxValue {
		return v[:MaxValue], true
	}
	return v, false
}

// appendPlain appends the bytes at the start of v that can stand as they are, and
// returns the others.
func appendPlain[T text](dst []byte, v T) ([]byte, T) {
	// Nearly always that is all of them: copied first, looked at then. Not more
	// than once for a value, or one full of escapes would take quadratic time.
	start := len(dst)
	dst = append(dst, v...)
	n := plain(dst[start:])
	return dst[:start+n], v[n:]
}

// plain returns how many bytes at the start of v can stand as they are: printable
// ASCII without '"' and '\'. It looks at 8 at once, see BenchmarkLine.
func plain(v []byte) int {
	const ones = 0x0101010101010101
	i := 0
	for ; i+8 <= len(v); i += 8 {
		w := binary.LittleEndian.Uint64(v[i:])
		// Sets the top bit of bytes below ' ', equal to '"' or '\' or 0x7f, or
		// beyond ASCII; also, by a borrow, of others above such a byte, so only
		// the lowest counts.
		q, b, d := w^'"'*ones, w^'\\'*ones, w^0x7f*ones
		found := (w-' '*ones)&^w | (q-ones)&^q | (b-ones)&^b | (d-ones)&^d | w
		if found &= 0x80 * ones; found != 0 {
			return i + bits.TrailingZeros64(found)/8
		}
	}
	for i < len(v) && isPlain(v[i]) {
		i++
	}
	return i
}

func isPlain(c byte) bool { return c >= ' ' && c < 0x7f && c != '"' && c != '\\' }
