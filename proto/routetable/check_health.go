package routetable

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/durationpb"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

// DefaultResolveInterval is the time from one lookup of a backend's name to the next
// in a table that does not set it.
const DefaultResolveInterval = 10 * time.Second

// The ranges of what health checks may hold.
const (
	MinCheckInterval           = 100 * time.Millisecond
	MaxChecksInARow            = 1000
	MaxFailuresInARow          = 1_000_000
	MaxExpectBodyBytes         = 4096
	MaxProbeHeaders            = 100
	MinResolveInterval         = 100 * time.Millisecond
	leastStatus, highestStatus = 100, 599
)

// ownFields are the fields of a probe that the data plane writes itself.
var ownFields = slices.Concat(hopFields, []string{"host", "upgrade", "expect"})

// CheckProbeHeaderName says what is wrong with the name of a field of a probe.
func CheckProbeHeaderName(name string) error {
	switch {
	case name == "":
		return errors.New("is empty; it must be a header field such as Authorization")
	case len(name) > MaxHeaderBytes:
		return fmt.Errorf("%s has %d bytes; at most %d are allowed", quote(name), len(name), MaxHeaderBytes)
	case !isToken(name):
		return fmt.Errorf("%s is not a valid header field name", quote(name))
	case strings.EqualFold(name, "host"):
		return errors.New("the Host field of a probe is set with host")
	case slices.Contains(ownFields, strings.ToLower(name)):
		return fmt.Errorf("%s cannot be set: it belongs to the connection or to the message's framing", quote(name))
	}
	return nil
}

// CheckProbeMethod says what is wrong with the method of a probe.
func CheckProbeMethod(method string) error {
	if err := CheckMethod(method); err != nil {
		return err
	}
	if method == "CONNECT" {
		return errors.New(`"CONNECT" opens a tunnel and cannot be a probe; use tcp to probe with a connection alone`)
	}
	return nil
}

// CheckProbePath says what is wrong with the path of a probe, which may have a
// query.
func CheckProbePath(path string) error {
	switch {
	case path == "" || path[0] != '/':
		return fmt.Errorf("%s does not begin with a slash", quote(path))
	case len(path) > MaxPathBytes:
		return fmt.Errorf("%s has %d bytes; at most %d are allowed", quote(path), len(path), MaxPathBytes)
	}
	for i := range len(path) {
		switch c := path[i]; {
		case c <= ' ' || c >= 0x7f:
			return fmt.Errorf("%s contains a space, control or non-ASCII character; it must be percent-encoded", quote(path))
		case c == '#':
			return fmt.Errorf("%s has a fragment; remove the # and what follows", quote(path))
		case c == '%':
			if _, ok := escape(path, i); !ok {
				return fmt.Errorf("%s has a %% that two hexadecimal digits do not follow", quote(path))
			}
		}
	}
	return nil
}

// CheckProbeHost says what is wrong with the Host field of a probe: host or
// host:port. It may be empty.
func CheckProbeHost(host string) error {
	if host == "" {
		return nil
	}
	if strings.ContainsAny(host, "/?#@") {
		return fmt.Errorf("%s is not a host, perhaps with a port", quote(host))
	}
	u := BackendURL{raw: httpScheme + host, path: len(httpScheme) + len(host), query: len(httpScheme) + len(host)}
	if err := u.checkAuthority(); err != nil {
		return fmt.Errorf("%s is not a host, perhaps with a port: %w", quote(host), err)
	}
	return nil
}

// CheckExpectBody says what is wrong with the text that a body must contain.
func CheckExpectBody(text string) error {
	switch {
	case len(text) > MaxExpectBodyBytes:
		return fmt.Errorf("%s has %d bytes; at most %d are allowed", quote(text), len(text), MaxExpectBodyBytes)
	case !utf8.ValidString(text):
		return fmt.Errorf("%s is not valid UTF-8", quote(text))
	}
	return nil
}

// CheckProbeBody says that the answer to a method has no body that could contain a
// text.
func CheckProbeBody(method, text string) error {
	if method == "HEAD" && text != "" {
		return errors.New("the answer to HEAD has no body; use the method GET")
	}
	return nil
}

// CheckCheckInterval says what is wrong with the time between two probes.
func CheckCheckInterval(d time.Duration) error { return checkInterval(d, MinCheckInterval) }

// CheckResolveInterval says what is wrong with the time between two lookups of a
// name.
func CheckResolveInterval(d time.Duration) error { return checkInterval(d, MinResolveInterval) }

func checkInterval(d, least time.Duration) error {
	if d < least || d > MaxTimeout {
		return fmt.Errorf("%s is out of range; it must be at least %s and at most %s", d, least, MaxTimeout)
	}
	return nil
}

// CheckProbeTimeout says that a probe may take longer than it is until the next.
func CheckProbeTimeout(timeout, interval time.Duration) error {
	if timeout > interval {
		return fmt.Errorf("%s is longer than the interval of %s; a probe must have ended before the next", timeout, interval)
	}
	return nil
}

func (v *validation) activeCheck(w *where, c *routetablev1.ActiveCheck) {
	if c == nil {
		return
	}
	v.known("active_check", w, c)
	if c.GetTcp() {
		v.tcpCheck(w, c)
	} else {
		v.httpCheck(w, c)
	}
	v.check("active_check.port", w, CheckRange(uint64(c.GetPort()), 0, 65535))
	if v.interval("active_check.interval", w, c.GetInterval(), CheckCheckInterval) && v.interval("active_check.timeout", w, c.GetTimeout(), CheckTimeout) {
		v.check("active_check.timeout", w, CheckProbeTimeout(c.GetTimeout().AsDuration(), c.GetInterval().AsDuration()))
	}
	v.check("active_check.jitter_percent", w, CheckRange(uint64(c.GetJitterPercent()), 0, 100))
	v.check("active_check.healthy_after", w, CheckRange(uint64(c.GetHealthyAfter()), 1, MaxChecksInARow))
	v.check("active_check.unhealthy_after", w, CheckRange(uint64(c.GetUnhealthyAfter()), 1, MaxChecksInARow))
}

func (v *validation) tcpCheck(w *where, c *routetablev1.ActiveCheck) {
	if c.GetMethod() != "" || c.GetPath() != "" || c.GetHost() != "" || len(c.GetHeaders()) > 0 ||
		len(c.GetExpectStatus()) > 0 || c.GetExpectBody() != "" {
		v.report("active_check", w, "probes with a connection alone, and says what to send or to expect")
	}
}

func (v *validation) httpCheck(w *where, c *routetablev1.ActiveCheck) {
	v.check("active_check.method", w, CheckProbeMethod(c.GetMethod()))
	v.check("active_check.path", w, CheckProbePath(c.GetPath()))
	v.check("active_check.host", w, CheckProbeHost(c.GetHost()))
	if n := len(c.GetHeaders()); n > MaxProbeHeaders {
		v.report("active_check.headers", w, "has %d fields; at most %d are allowed", n, MaxProbeHeaders)
	}
	for i, h := range c.GetHeaders() {
		at := where{w, "active_check.headers", i}
		if h == nil {
			v.report("", &at, "is not set")
			continue
		}
		v.known("", &at, h)
		v.check("name", &at, CheckProbeHeaderName(h.GetName()))
		v.check("value", &at, CheckHeaderValue(h.GetValue()))
		if i > 0 {
			v.ascending("active_check.headers", w, i, strings.ToLower(c.GetHeaders()[i-1].GetName()), strings.ToLower(h.GetName()))
		}
	}
	v.statusRanges("active_check.expect_status", w, c.GetExpectStatus())
	v.check("active_check.expect_body", w, CheckExpectBody(c.GetExpectBody()))
	v.check("active_check.expect_body", w, CheckProbeBody(c.GetMethod(), c.GetExpectBody()))
}

// statusRanges checks that ranges ascend and do not touch: two forms would be two
// versions.
func (v *validation) statusRanges(list string, w *where, ranges []*routetablev1.StatusRange) {
	if len(ranges) == 0 {
		v.report(list, w, "is empty; nothing would be healthy")
	}
	for i, r := range ranges {
		at := where{w, list, i}
		if r == nil {
			v.report("", &at, "is not set")
			return
		}
		v.known("", &at, r)
		v.check("first", &at, CheckRange(uint64(r.GetFirst()), leastStatus, highestStatus))
		v.check("last", &at, CheckRange(uint64(r.GetLast()), leastStatus, highestStatus))
		switch {
		case r.GetLast() < r.GetFirst():
			v.report("", &at, "ends before it begins")
		case i > 0 && r.GetFirst() <= ranges[i-1].GetLast()+1:
			v.report("", &at, "begins at %d, which belongs to the range before it", r.GetFirst())
		}
	}
}

func (v *validation) passiveCheck(w *where, c *routetablev1.PassiveCheck) {
	if c == nil {
		return
	}
	v.known("passive_check", w, c)
	v.check("passive_check.consecutive_failures", w, CheckRange(uint64(c.GetConsecutiveFailures()), 1, MaxFailuresInARow))
	v.duration("passive_check.eject_for", w, c.GetEjectFor())
	v.check("passive_check.max_ejected_percent", w, CheckRange(uint64(c.GetMaxEjectedPercent()), 1, 100))
}

func (v *validation) resolveInterval(d *durationpb.Duration) {
	if d != nil {
		v.interval("resolve_interval", nil, d, CheckResolveInterval)
	}
}
