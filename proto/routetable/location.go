package routetable

import (
	"errors"
	"fmt"
	"strings"
)

// ParseLocation takes the target of a redirect apart and says what is wrong with
// it: http:// or https:// or ${scheme}:// and a host, which a request can choose by
// ${host} only; or a path of the same server.
func ParseLocation(to string) (Template, error) {
	const want = "it must begin with https:// or http:// or ${scheme}:// and a host, with a slash, or with ${path}"
	switch {
	case to == "":
		return nil, errors.New("is empty; " + want)
	case len(to) > MaxURLBytes:
		return nil, fmt.Errorf("%s has %d bytes; at most %d are allowed", quote(to), len(to), MaxURLBytes)
	case strings.ContainsFunc(to, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		return nil, fmt.Errorf("%s contains a space, control or non-ASCII character; it must be percent-encoded", quote(to))
	}
	t, err := ParseTemplate(to)
	if err != nil {
		return nil, err
	}
	rest := to
	for _, scheme := range []string{"https://", "http://", "${scheme}://"} {
		if after, ok := strings.CutPrefix(to, scheme); ok {
			rest = after
		}
	}
	switch {
	case rest != to:
		return t, checkLocationHost(to, rest)
	case strings.HasPrefix(to, "//"):
		return nil, fmt.Errorf("%s begins with two slashes, behind which clients expect a host; %s", quote(to), want)
	case to[0] != '/' && !strings.HasPrefix(to, "${path}"):
		return nil, fmt.Errorf("%s is no location; %s", quote(to), want)
	}
	return t, nil
}

// checkLocationHost checks what follows the scheme of a location.
func checkLocationHost(to, rest string) error {
	const path = "${path}" // begins with a slash
	host := rest
	if i := strings.IndexAny(host, "/?#"); i >= 0 {
		host = host[:i]
	}
	if i := strings.Index(host, path); i >= 0 {
		host = host[:i]
	}
	plain := strings.ReplaceAll(host, "${host}", "")
	switch {
	case host == "":
		return fmt.Errorf("%s has no host", quote(to))
	case strings.ContainsAny(plain, "$"):
		return fmt.Errorf("%s has a variable in its host that is not ${host}; a slash must follow the host", quote(to))
	case strings.ContainsAny(plain, "@\\"):
		return fmt.Errorf("%s has a host that is not valid", quote(to))
	}
	return nil
}

// AppendLocation appends the location that the template of a redirect is for a
// request. Whatever the request is, it is a valid one: bytes that a URL does not
// have are percent-encoded, and a path does not begin with two slashes, behind
// which clients expect a host.
func (t Template) AppendLocation(dst []byte, v *Values) []byte {
	start := len(dst)
	dst = t.Append(dst, v)
	end := start
	for end+1 < len(dst) && dst[end] == '/' && dst[end+1] == '/' {
		end++
	}
	if end > start {
		dst = append(dst[:start], dst[end:]...)
	}
	return encodeFrom(dst, start)
}

// encodeFrom percent-encodes, from start on, the bytes that a URL does not have.
func encodeFrom(dst []byte, start int) []byte {
	odd := 0
	for _, c := range dst[start:] {
		if !inURL[c] {
			odd++
		}
	}
	from := len(dst)
	for range odd {
		dst = append(dst, 0, 0)
	}
	// From the end on: what has not been looked at is not overwritten.
	for to := len(dst); to > from; {
		from--
		if c := dst[from]; inURL[c] {
			to--
			dst[to] = c
		} else {
			to -= 3
			appendEscape(dst[:to], c)
		}
	}
	return dst
}

// inURL are the bytes of a URL (RFC 3986 section 2).
var inURL = func() (in [256]bool) {
	for c := byte(0x21); c < 0x7f; c++ {
		in[c] = !strings.ContainsRune("\"<>\\^`{|}", rune(c))
	}
	return in
}()
