package routetable

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// CheckName says what is wrong with the name of an endpoint.
func CheckName(name string) error {
	switch {
	case name == "":
		return errors.New("is empty")
	case len(name) > MaxNameBytes:
		return fmt.Errorf("%s has %d bytes; at most %d are allowed", quote(name), len(name), MaxNameBytes)
	case name == NoEndpoint:
		return fmt.Errorf("%s is reserved: metrics count requests under it that no endpoint takes", quote(name))
	case !utf8.ValidString(name):
		return fmt.Errorf("%s is not valid UTF-8", quote(name))
	case strings.ContainsFunc(name, unicode.IsControl):
		return fmt.Errorf("%s contains a control character", quote(name))
	}
	return nil
}

// tokenBytes are the bytes of a token (RFC 9110 section 5.6.2).
var tokenBytes = func() (in [256]bool) {
	for c := '0'; c <= '9'; c++ {
		in[c] = true
	}
	for c := 'a'; c <= 'z'; c++ {
		in[c], in[c-'a'+'A'] = true, true
	}
	for _, c := range "!#$%&'*+-.^_`|~" {
		in[c] = true
	}
	return in
}()

func isToken(s string) bool {
	for i := range len(s) {
		if !tokenBytes[s[i]] {
			return false
		}
	}
	return s != ""
}

// CheckMethod says what is wrong with a method of an endpoint. Methods are
// case-sensitive (RFC 9110 section 9.1).
func CheckMethod(method string) error {
	switch {
	case method == "":
		return errors.New("is empty; it must be a method such as GET")
	case len(method) > MaxMethodBytes:
		return fmt.Errorf("%s has %d bytes; at most %d are allowed", quote(method), len(method), MaxMethodBytes)
	case !isToken(method):
		return fmt.Errorf("%s is not a valid method; it must be one word such as GET", quote(method))
	}
	return nil
}

// hopFields are about the connection or the message's framing: a proxy answers
// for them itself, so nothing can be routed by them.
var hopFields = []string{
	"connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding",
}

// CheckHeaderName says what is wrong with the field name of a header condition,
// in wire form: lower case.
func CheckHeaderName(name string) error {
	if name == "host" {
		return errors.New(`"host" cannot be a header condition; use the endpoint's host`)
	}
	return checkFieldName(name, "x-beta", "a header condition")
}

// checkFieldName says what is wrong with the name of a field of which requests have
// the value, used as a kind of thing.
func checkFieldName(name, example, kind string) error {
	switch {
	case name == "":
		return fmt.Errorf("is empty; it must be a header field such as %s", example)
	case len(name) > MaxHeaderBytes:
		return fmt.Errorf("%s has %d bytes; at most %d are allowed", quote(name), len(name), MaxHeaderBytes)
	case !isToken(name):
		return fmt.Errorf("%s is not a valid header field name", quote(name))
	case !IsLower(name):
		return fmt.Errorf("%s has upper-case letters; write %s", quote(name), quote(AppendLower(nil, name)))
	case slices.Contains(hopFields, name):
		return fmt.Errorf("%s cannot be %s: it belongs to the connection, not to the request", quote(name), kind)
	}
	return nil
}

// CheckHeaderValue says what is wrong with the value of a header condition. It
// may be empty.
func CheckHeaderValue(value string) error {
	switch {
	case len(value) > MaxHeaderBytes:
		return fmt.Errorf("%s has %d bytes; at most %d are allowed", quote(value), len(value), MaxHeaderBytes)
	case !utf8.ValidString(value):
		return fmt.Errorf("%s is not valid UTF-8", quote(value))
	case strings.Trim(value, " \t") != value:
		return fmt.Errorf("%s starts or ends with white space, which is not part of a header value", quote(value))
	}
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return fmt.Errorf("%s contains a control character", quote(value))
		}
	}
	return nil
}

// CheckWeight says what is wrong with the weight of a backend.
func CheckWeight(weight uint64) error {
	if weight > MaxWeight {
		return fmt.Errorf("%d is too much; it must be 0 to %d", weight, MaxWeight)
	}
	return nil
}

// CheckTimeout says what is wrong with a timeout of an endpoint or a limit.
func CheckTimeout(d time.Duration) error {
	if d <= 0 || d > MaxTimeout {
		return fmt.Errorf("%s is out of range; it must be more than 0s and at most %s", d, MaxTimeout)
	}
	return nil
}

// CheckOptionalTimeout says what is wrong with a timeout that may be left out,
// which is written 0s.
func CheckOptionalTimeout(d time.Duration) error {
	if d < 0 || d > MaxTimeout {
		return fmt.Errorf("%s is out of range; it must be 0s (none) to %s", d, MaxTimeout)
	}
	return nil
}

// CheckLogPath says what is wrong with the path of an access log. It is a path on
// the machines of the data planes, whose working directories nobody knows.
func CheckLogPath(path string) error {
	switch {
	case path == "":
		return fmt.Errorf("is empty; it must be %s or an absolute path such as /var/log/reverseproxy/access.log", Stdout)
	case path == Stdout:
		return nil
	case len(path) > MaxLogPathBytes:
		return fmt.Errorf("%s has %d bytes; at most %d are allowed", quote(path), len(path), MaxLogPathBytes)
	case !utf8.ValidString(path):
		return fmt.Errorf("%s is not valid UTF-8", quote(path))
	case strings.ContainsFunc(path, unicode.IsControl):
		return fmt.Errorf("%s contains a control character", quote(path))
	case path[0] != '/':
		return fmt.Errorf("%s is not an absolute path; write %s, or a path that begins with a slash", quote(path), Stdout)
	case path[len(path)-1] == '/':
		return fmt.Errorf("%s is a directory; the name of a file is missing", quote(path))
	}
	return nil
}

// CheckRange says that a number is not between least and most. The message calls
// it by its value only, so that the caller can name it as its reader knows it.
func CheckRange(v, least, most uint64) error {
	if v < least || v > most {
		return fmt.Errorf("%d is out of range; it must be %d to %d", v, least, most)
	}
	return nil
}
