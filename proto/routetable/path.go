package routetable

import (
	"errors"
	"fmt"
	"strings"
)

// ErrPath is returned for a path that is not a valid absolute path or that
// climbs above the root.
var ErrPath = errors.New("invalid path")

// The kinds of bytes in a path.
const (
	badByte   = iota // not valid anywhere in a path
	plainByte        // stands for itself
	slashByte
	percentByte
)

// pathBytes classifies every byte. RFC 3986 allows fewer characters than are
// taken here: browsers send "|", "[" and others as they are, and comparing them
// byte for byte is safe. White space, control characters and bytes above 0x7e
// are refused, "?" and "#" end a path.
var pathBytes = func() (class [256]uint8) {
	for c := byte(0x21); c < 0x7f; c++ {
		class[c] = plainByte
	}
	class['?'], class['#'] = badByte, badByte
	class['/'] = slashByte
	class['%'] = percentByte
	return class
}()

// unhex returns the value of a hexadecimal digit, or a number above 15.
func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 0xff
}

// escape decodes the percent-encoded byte at p[i].
func escape[T text](p T, i int) (c byte, ok bool) {
	if i+2 >= len(p) {
		return 0, false
	}
	hi, lo := unhex(p[i+1]), unhex(p[i+2])
	if hi > 15 || lo > 15 {
		return 0, false
	}
	return hi<<4 | lo, true
}

// unreserved reports whether c means the same with and without percent-encoding
// (RFC 3986 section 2.3).
func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '-' || c == '.' || c == '_' || c == '~'
}

// dotSegment returns 1 when a segment starts at p[i] that is ".", 2 for "..",
// else 0. The dots may be percent-encoded.
func dotSegment[T text](p T, i int) int {
	dots := 0
	for i < len(p) && p[i] != '/' {
		switch {
		case dots == 2:
			return 0
		case p[i] == '.':
			i++
		case p[i] == '%':
			if c, ok := escape(p, i); !ok || c != '.' {
				return 0
			}
			i += 3
		default:
			return 0
		}
		dots++
	}
	return dots
}

// IsNormalPath reports whether NormalizePath would return p as it is.
func IsNormalPath[T text](p T) bool {
	if len(p) == 0 || p[0] != '/' {
		return false
	}
	for i := 0; i < len(p); i++ {
		switch pathBytes[p[i]] {
		case plainByte:
		case slashByte:
			// Only a dot can begin a dot segment here: an encoded one is
			// refused as an escape.
			if i+1 < len(p) && p[i+1] == '.' && dotSegment(p, i+1) != 0 {
				return false
			}
		case percentByte:
			c, ok := escape(p, i)
			if !ok || unreserved(c) || p[i+1] >= 'a' || p[i+2] >= 'a' {
				return false
			}
			i += 2
		default:
			return false
		}
	}
	return true
}

// NormalizePath returns the form in which paths are compared: percent-encoded
// unreserved characters decoded, other escapes in upper case (RFC 3986 section
// 6.2.2), dot segments removed (section 5.2.4, also when the dots are
// percent-encoded). %2F stays distinct from a slash, and empty segments are
// kept. A path that leaves the root is an error, not clamped: no client means
// it. The only error is ErrPath.
func NormalizePath(raw string) (string, error) {
	if IsNormalPath(raw) {
		return raw, nil
	}
	p, err := AppendNormalPath(make([]byte, 0, len(raw)), raw)
	if err != nil {
		return "", err
	}
	return string(p), nil
}

// AppendNormalPath appends the normal form of raw to dst, which never is longer
// than raw. On an error dst is returned as it was.
func AppendNormalPath[T text](dst []byte, raw T) ([]byte, error) {
	if len(raw) == 0 || raw[0] != '/' {
		return dst, ErrPath
	}
	base := len(dst)
	for i := 0; i < len(raw); {
		if dots := dotSegment(raw, i+1); dots > 0 {
			var ok bool
			if dst, ok = leaveSegment(dst, base, dots); !ok {
				return dst[:base], ErrPath
			}
			if i = nextSlash(raw, i+1); i == len(raw) {
				dst = append(dst, '/')
			}
			continue
		}
		dst = append(dst, '/')
		for i++; i < len(raw) && raw[i] != '/'; i++ {
			switch pathBytes[raw[i]] {
			case plainByte:
				dst = append(dst, raw[i])
			case percentByte:
				c, ok := escape(raw, i)
				switch {
				case !ok:
					return dst[:base], ErrPath
				case unreserved(c):
					dst = append(dst, c)
				default:
					dst = appendEscape(dst, c)
				}
				i += 2
			default:
				return dst[:base], ErrPath
			}
		}
	}
	return dst, nil
}

// appendWithoutDots appends raw without its dot segments and with every other
// byte kept. raw must be a path that NormalizePath accepts.
func appendWithoutDots[T text](dst []byte, raw T) []byte {
	base := len(dst)
	for i := 0; i < len(raw); {
		end := nextSlash(raw, i+1)
		if dots := dotSegment(raw, i+1); dots > 0 {
			dst, _ = leaveSegment(dst, base, dots)
			if end == len(raw) {
				dst = append(dst, '/')
			}
		} else {
			dst = append(dst, raw[i:end]...)
		}
		i = end
	}
	return dst
}

// hasDots reports whether p has a dot segment.
func hasDots[T text](p T) bool {
	for i := 0; i < len(p); i++ {
		if p[i] == '/' && i+1 < len(p) && (p[i+1] == '.' || p[i+1] == '%') && dotSegment(p, i+1) != 0 {
			return true
		}
	}
	return false
}

// leaveSegment does what a segment of one or two dots means to the path that
// starts at dst[base]. It is not ok to leave the root.
func leaveSegment(dst []byte, base, dots int) (out []byte, ok bool) {
	if dots == 1 {
		return dst, true
	}
	for i := len(dst) - 1; i >= base; i-- {
		if dst[i] == '/' {
			return dst[:i], true
		}
	}
	return dst, false
}

// nextSlash returns the index of the first slash of p from i on, or len(p).
func nextSlash[T text](p T, i int) int {
	for i < len(p) && p[i] != '/' {
		i++
	}
	return i
}

// ParseFrom splits the configuration's notation of paths, which From writes:
// "/x" is an exact path, "/x/*" the prefix "/x", "/*" the prefix "".
func ParseFrom(from string) (path string, prefix bool, err error) {
	switch {
	case from == "":
		return "", false, errors.New("is empty; it must be a path such as /index, /assets/* or /*")
	case from[0] != '/':
		return "", false, fmt.Errorf("%s does not start with a slash; it must be a path such as /index, /assets/* or /*", quote(from))
	case strings.ContainsAny(from, "?#"):
		return "", false, fmt.Errorf("%s has a query or a fragment; only the path can be matched", quote(from))
	}
	path, prefix = strings.CutSuffix(from, "/*")
	if err := CheckPath(path, prefix); err != nil {
		return "", false, err
	}
	return path, prefix, nil
}

// From writes a path in the configuration's notation, see ParseFrom.
func From(path string, prefix bool) string {
	if prefix {
		return path + "/*"
	}
	return path
}

// CheckPath says what is wrong with the path of an endpoint, in wire form: an
// exact path, or a prefix without a slash at its end.
func CheckPath(path string, prefix bool) error {
	if prefix && path == "" {
		return nil
	}
	shown := func() string { return quote(From(path, prefix)) }
	switch {
	case len(path) > MaxPathBytes:
		return fmt.Errorf("%s has %d bytes; at most %d are allowed", shown(), len(path), MaxPathBytes)
	case strings.IndexByte(path, '*') >= 0:
		return fmt.Errorf("%s has a * that is not the whole last segment; only a path that ends in /* matches more than itself", shown())
	case prefix && strings.HasSuffix(path, "/"):
		return fmt.Errorf("%s has an empty segment before the *; write %s", shown(), quote(strings.TrimRight(path, "/")+"/*"))
	}
	normal, err := NormalizePath(path)
	if err != nil {
		return fmt.Errorf("%s is not a valid path; it must start with a slash, stay below the root, and spaces, control and non-ASCII characters must be percent-encoded", shown())
	}
	if normal != path {
		return fmt.Errorf("%s is not in normal form; write %s", shown(), quote(From(normal, prefix)))
	}
	return nil
}
