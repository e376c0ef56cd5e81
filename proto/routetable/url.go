package routetable

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// BackendURL is a parsed URL of a pool.
type BackendURL struct {
	raw               string
	path, query, port int // where they start; port 0: there is none
}

const httpScheme = "http://"

var slash = []byte{'/'}

// ParseBackendURL parses http://host[:port][/path][?query]. Path and query go on
// the wire byte for byte, so they may hold only what is valid there.
func ParseBackendURL(raw string) (BackendURL, error) {
	rest, ok := strings.CutPrefix(raw, httpScheme)
	if !ok {
		return BackendURL{}, schemeError(raw)
	}
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		rest = rest[:i]
	}
	if strings.IndexByte(rest, '@') >= 0 {
		// The message must not show the password.
		return BackendURL{}, errors.New("has a user or password, which is not supported; a backend is written http://host:port")
	}
	if len(raw) > MaxURLBytes {
		return BackendURL{}, fmt.Errorf("%s has %d bytes; at most %d are allowed", quote(raw), len(raw), MaxURLBytes)
	}
	if strings.IndexByte(raw, '#') >= 0 {
		return BackendURL{}, fmt.Errorf("%s has a fragment; remove the # and what follows", quote(raw))
	}
	path, end, query := len(httpScheme)+len(rest), len(raw), len(raw)
	if i := strings.IndexByte(raw, '?'); i >= 0 {
		end, query = i, i+1
	}
	u := BackendURL{raw: raw, path: path, query: query}
	if err := u.checkAuthority(); err != nil {
		return BackendURL{}, err
	}
	for i := path; i < len(raw); i++ {
		switch c := raw[i]; {
		case c <= ' ' || c >= 0x7f:
			return BackendURL{}, fmt.Errorf("%s contains a space, control or non-ASCII character; it must be percent-encoded", quote(raw))
		case c == '%' && i < end:
			if _, ok := escape(raw[:end], i); !ok {
				return BackendURL{}, fmt.Errorf("%s has a %% in its path that two hexadecimal digits do not follow", quote(raw))
			}
		}
	}
	return u, nil
}

func schemeError(raw string) error {
	const want = "a backend is written http://host:port or http://host:port/path"
	scheme, _, ok := strings.Cut(raw, "://")
	switch {
	case raw == "":
		return errors.New("is empty; " + want)
	case !ok:
		return fmt.Errorf("%s does not start with http://; %s", quote(raw), want)
	case strings.EqualFold(scheme, "https"):
		return fmt.Errorf("%s uses https, which is not supported for backends yet; %s", quote(raw), want)
	case strings.EqualFold(scheme, "http"):
		return fmt.Errorf("%s does not start with http:// in lower case; %s", quote(raw), want)
	}
	return fmt.Errorf("%s uses the scheme %s; only http is supported; %s", quote(raw), quote(scheme), want)
}

// checkAuthority checks host and port and finds where the port starts.
func (u *BackendURL) checkAuthority() error {
	host, port, hasPort := u.Authority(), "", false
	if i := strings.LastIndexByte(host, ':'); i >= 0 && i > strings.LastIndexByte(host, ']') {
		u.port = len(httpScheme) + i
		host, port, hasPort = host[:i], host[i+1:], true
	}
	if host == "" {
		return fmt.Errorf("%s has no host", quote(u.raw))
	}
	if hasPort {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 || port[0] == '0' {
			return fmt.Errorf("%s has the port %s; it must be 1 to 65535", quote(u.raw), quote(port))
		}
	}
	if host[0] == '[' {
		return checkIPv6(host)
	}
	// A dot at the end says that the name is complete; resolvers honour it.
	if len(host) > 1 {
		host = strings.TrimSuffix(host, ".")
	}
	return checkHostName(host)
}

// String returns the URL as it was parsed.
func (u *BackendURL) String() string { return u.raw }

// Authority returns host[:port] as written.
func (u *BackendURL) Authority() string { return u.raw[len(httpScheme):u.path] }

// Address returns what to connect to, by which a backend is known: host:port in
// lower case, port 80 when the URL has none.
func (u *BackendURL) Address() string {
	a := u.Authority()
	if !IsLower(a) {
		a = string(AppendLower(nil, a))
	}
	if u.port == 0 {
		a += ":80"
	}
	return a
}

// AppendAddress appends the Address of a URL that ParseBackendURL accepts.
func AppendAddress(dst, url []byte) []byte {
	authority := url[len(httpScheme):]
	if i := bytes.IndexAny(authority, "/?"); i >= 0 {
		authority = authority[:i]
	}
	dst = AppendLower(dst, authority)
	if bytes.LastIndexByte(authority, ':') <= bytes.LastIndexByte(authority, ']') {
		dst = append(dst, ":80"...)
	}
	return dst
}

// Path returns the path as written; empty when the URL has none.
func (u *BackendURL) Path() string {
	if u.hasQuery() {
		return u.raw[u.path : u.query-1]
	}
	return u.raw[u.path:]
}

// Query returns the query without the question mark. An empty query is none.
func (u *BackendURL) Query() string { return u.raw[u.query:] }

func (u *BackendURL) hasQuery() bool { return u.query > 0 && u.raw[u.query-1] == '?' }

// AppendTarget appends the request target (path and query) that a backend is
// sent whose URL has the path own and the query first. Without a path of its own
// the request's raw path passes unchanged; otherwise it replaces the whole path
// when the endpoint's is exact, else the matched prefix, which has that many
// segments. What remains is appended by exactly one slash, byte for byte, after
// its dot segments were removed. The URL's query comes first, joined to the
// request's by "&".
//
// The path must be one that NormalizePath accepts and that the endpoint matches,
// or empty, which means "/".
func AppendTarget(dst []byte, own, first string, exact bool, segments int, path, query []byte, hasQuery bool) []byte {
	if len(path) == 0 {
		path = slash
	}
	switch {
	case own != "" && exact:
		dst = append(dst, own...)
	case own != "":
		dst = appendRemainder(append(dst, own...), segments, path)
	default:
		dst = append(dst, path...)
	}
	if hasQuery || first != "" {
		dst = append(append(dst, '?'), first...)
	}
	if first != "" && len(query) > 0 {
		dst = append(dst, '&')
	}
	return append(dst, query...)
}

// appendRemainder appends what follows the first segments of path to dst, which
// ends in the path of a URL.
func appendRemainder(dst []byte, segments int, path []byte) []byte {
	if hasDots(path) {
		path = appendWithoutDots(make([]byte, 0, len(path)+1), path)
	}
	i := 0
	for range segments {
		i = nextSlash(path, i+1)
	}
	if i >= len(path) {
		return dst
	}
	if n := len(dst); dst[n-1] == '/' {
		dst = dst[:n-1]
	}
	return append(dst, path[i:]...)
}

// Segments counts the segments of a prefix: 0 for "", 2 for "/a/b".
func Segments(prefix string) int { return strings.Count(prefix, "/") }
