package routetable

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

const (
	// MaxRegexBytes bounds a regular expression, and what replaces its matches.
	MaxRegexBytes = 1024
	// maxRewrittenBytes bounds the path that a replacement may make: each of many
	// matches can become longer.
	maxRewrittenBytes = 64 << 10
)

// Rewrite changes the path of a request before it goes to a backend. It is
// immutable.
type Rewrite struct {
	// path takes the place of the whole path or, with prefix, of the segments that
	// the endpoint has matched.
	path   string
	prefix bool
	// match is what is replaced otherwise.
	match       *regexp.Regexp
	replacement []part
}

// part is a text or, when text is empty, a group of a match.
type part struct {
	text  string
	group int
}

// NewRewrite returns the rewrite of an endpoint, whose path is a prefix or not; nil
// when it has none. The error says what is wrong with it.
func NewRewrite(w *routetablev1.Rewrite, prefix bool) (*Rewrite, error) {
	if w == nil {
		return nil, nil
	}
	switch to := w.GetTo().(type) {
	case *routetablev1.Rewrite_Path:
		return &Rewrite{path: to.Path}, CheckPath(to.Path, false)
	case *routetablev1.Rewrite_Prefix:
		if !prefix {
			return nil, errors.New("replaces a prefix, but the endpoint has none: its path is exact; use path")
		}
		return &Rewrite{path: to.Prefix, prefix: true}, CheckPath(to.Prefix, false)
	case *routetablev1.Rewrite_Regex:
		match, err := CompileRegex(to.Regex.GetMatch())
		if err != nil {
			return nil, err
		}
		replacement, err := parseReplacement(match, to.Regex.GetReplace())
		return &Rewrite{match: match, replacement: replacement}, err
	}
	return nil, errors.New("is not set; one of path, prefix and regex must be")
}

// CompileRegex compiles the regular expression of a rewrite. The time to match it
// grows with the length of the path and no faster.
func CompileRegex(match string) (*regexp.Regexp, error) {
	switch {
	case match == "":
		return nil, errors.New("is empty; it must be a regular expression such as ^/old/(.*)$")
	case len(match) > MaxRegexBytes:
		return nil, fmt.Errorf("%s has %d bytes; at most %d are allowed", quote(match), len(match), MaxRegexBytes)
	}
	compiled, err := regexp.Compile(match)
	if err != nil {
		return nil, fmt.Errorf("%s is not a regular expression of RE2: %s", quote(match), strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	return compiled, nil
}

// CheckReplacement says what is wrong with what replaces the matches of a regular
// expression: $1 or ${1} or ${name} is a group, $$ a dollar.
func CheckReplacement(match *regexp.Regexp, replace string) error {
	_, err := parseReplacement(match, replace)
	return err
}

func parseReplacement(match *regexp.Regexp, replace string) ([]part, error) {
	if len(replace) > MaxRegexBytes {
		return nil, fmt.Errorf("%s has %d bytes; at most %d are allowed", quote(replace), len(replace), MaxRegexBytes)
	}
	if strings.ContainsAny(replace, "?#") {
		return nil, fmt.Errorf("%s has a query or a fragment; only the path is rewritten, and the query passes as it came", quote(replace))
	}
	var parts []part
	for rest := replace; rest != ""; {
		before, after, found := strings.Cut(rest, "$")
		if before != "" {
			parts = append(parts, part{text: before})
		}
		if !found {
			break
		}
		name := after[:len(after)-len(strings.TrimLeft(after, "0123456789"))]
		switch {
		case strings.HasPrefix(after, "$"):
			parts, rest = append(parts, part{text: "$"}), after[1:]
			continue
		case name != "":
			rest = after[len(name):]
		case strings.HasPrefix(after, "{"):
			var closed bool
			if name, rest, closed = strings.Cut(after[1:], "}"); !closed {
				return nil, fmt.Errorf("%s has a ${ without a }; write $$ for a dollar", quote(replace))
			}
		default:
			return nil, fmt.Errorf("%s has a $ that neither a number nor { follows; write $1 for a group, $$ for a dollar", quote(replace))
		}
		group, err := groupOf(match, name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", quote(replace), err)
		}
		parts = append(parts, part{group: group})
	}
	if pattern := match.String(); strings.HasPrefix(pattern, "^") && !strings.Contains(pattern, "|") &&
		(len(parts) == 0 || parts[0].text != "" && parts[0].text[0] != '/') {
		return nil, fmt.Errorf("%s does not begin with a slash, and it takes the place of the beginning of the path", quote(replace))
	}
	return parts, nil
}

// groupOf returns the number of a group by its number or name.
func groupOf(match *regexp.Regexp, name string) (int, error) {
	if n, err := strconv.Atoi(name); err == nil && n >= 0 {
		if n > match.NumSubexp() {
			return 0, fmt.Errorf("there is no group %d; the regular expression has %d", n, match.NumSubexp())
		}
		return n, nil
	}
	if n := match.SubexpIndex(name); n >= 0 {
		return n, nil
	}
	return 0, fmt.Errorf("there is no group called %s", quote(name))
}

// Append appends the path that a request has after the rewrite. path is the
// request's, which the endpoint matches with a prefix of that many segments, and
// normal its normal form. It returns false, and dst as it was, when the result is
// not a path: without a slash at its beginning, above the root, or too long.
//
// Nothing is allocated but for the matches of a regular expression.
func (w *Rewrite) Append(dst, path, normal []byte, segments int) ([]byte, bool) {
	switch {
	case w.match == nil && w.prefix:
		return appendRemainder(append(dst, w.path...), segments, path), true
	case w.match == nil:
		return append(dst, w.path...), true
	}
	matches := w.match.FindAllSubmatchIndex(normal, -1)
	if matches == nil {
		return append(dst, path...), true
	}
	return w.replace(dst, normal, matches)
}

// replace appends path with its matches replaced.
func (w *Rewrite) replace(dst, path []byte, matches [][]int) ([]byte, bool) {
	start, end := len(dst), 0
	for _, m := range matches {
		dst = append(dst, path[end:m[0]]...)
		end = m[1]
		for _, p := range w.replacement {
			dst = append(dst, p.text...)
			if p.text == "" && m[2*p.group] >= 0 {
				dst = append(dst, path[m[2*p.group]:m[2*p.group+1]]...)
			}
		}
		if len(dst)-start > maxRewrittenBytes {
			return dst[:start], false
		}
	}
	dst = append(dst, path[end:]...)
	result := dst[start:]
	if len(result) == 0 || result[0] != '/' || len(result) > maxRewrittenBytes {
		return dst[:start], false
	}
	if !encoded(result) {
		result = appendEncoded(nil, result)
	}
	if hasDots(result) {
		if _, err := AppendNormalPath(nil, result); err != nil {
			return dst[:start], false
		}
		result = appendWithoutDots(nil, result)
	}
	return append(dst[:start], result...), true
}

// encoded reports whether a path has no byte that must be percent-encoded.
func encoded(path []byte) bool {
	for i, c := range path {
		if class := pathBytes[c]; class == badByte || class == percentByte && !isEscape(path, i) {
			return false
		}
	}
	return true
}

func isEscape(path []byte, i int) bool {
	_, ok := escape(path, i)
	return ok
}

// appendEncoded appends a path with every byte percent-encoded that must be.
func appendEncoded(dst, path []byte) []byte {
	for i, c := range path {
		if class := pathBytes[c]; class == badByte || class == percentByte && !isEscape(path, i) {
			dst = appendEscape(dst, c)
			continue
		}
		dst = append(dst, c)
	}
	return dst
}

// appendEscape appends c percent-encoded.
func appendEscape(dst []byte, c byte) []byte {
	const digits = "0123456789ABCDEF"
	return append(dst, '%', digits[c>>4], digits[c&15])
}
