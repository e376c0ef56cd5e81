package config

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"reverseproxy/proto/routetable"
)

// HealthCheck says how the backends of an endpoint are watched.
type HealthCheck struct {
	Active  *ActiveCheck  // nil: none
	Passive *PassiveCheck // nil: none
}

// ActiveCheck is a probe of each backend. With TCP, Method to ExpectBody are
// empty.
type ActiveCheck struct {
	TCP            bool
	Method, Path   string
	Host           string   // empty: that of the backend's URL
	Headers        []Header // sorted by name; letter case is kept
	ExpectStatus   []StatusRange
	ExpectBody     string // empty: any
	Port           uint16 // 0: the backend's
	Interval       time.Duration
	Timeout        time.Duration
	JitterPercent  uint32
	HealthyAfter   uint32
	UnhealthyAfter uint32
}

// StatusRange is a range of status codes, both included. Those of a check ascend
// and do not touch.
type StatusRange struct{ First, Last uint32 }

// PassiveCheck takes backends out of use for a time that fail requests.
type PassiveCheck struct {
	ConsecutiveFailures uint32
	EjectFor            time.Duration
	MaxEjectedPercent   uint32
	On5xx               bool
}

func defaultActiveCheck() *ActiveCheck {
	return &ActiveCheck{
		Method: "GET", Path: "/", ExpectStatus: []StatusRange{{200, 299}},
		Interval: 5 * time.Second, Timeout: time.Second, JitterPercent: 20, HealthyAfter: 2, UnhealthyAfter: 3,
	}
}

func defaultPassiveCheck() *PassiveCheck {
	return &PassiveCheck{ConsecutiveFailures: 5, EjectFor: 10 * time.Second, MaxEjectedPercent: 50}
}

var (
	activeSchema = &schema{key: "active", keys: []*schema{
		{key: "path", def: "/"},
		{key: "method", def: "GET"},
		{key: "interval", def: "5s"},
		{key: "timeout", def: "1s"},
		{key: "jitter", def: "20%"},
		{key: "healthyAfter", def: "2"},
		{key: "unhealthyAfter", def: "3"},
		{key: "expectStatus"},
		{key: "expectBody", def: `""`},
		{key: "host", def: `""`},
		{key: "headers"},
		{key: "port", def: "0"},
		{key: "tcp", def: "false"},
	}}
	passiveSchema = &schema{key: "passive", keys: []*schema{
		{key: "consecutiveFailures", def: "5"},
		{key: "ejectFor", def: "10s"},
		{key: "maxEjectedPercent", def: "50"},
		{key: "on5xx", def: "false"},
	}}
	healthCheckSchema = &schema{key: "healthCheck", keys: []*schema{activeSchema, passiveSchema}}

	dnsSchema = &schema{key: "dns", keys: []*schema{
		{key: "interval", def: "10s"},
	}}
)

// healthCheck reads the checks of an endpoint or of the defaults. An empty mapping
// is none: the way to write that an endpoint has not those of the defaults.
func (r *reader) healthCheck(n node, at *path) *HealthCheck {
	h := &HealthCheck{}
	r.mapping(n, at, healthCheckSchema, "{active: {path: /health}}", func(key *schema, v node, at *path) {
		switch key.key {
		case "active":
			h.Active = r.activeCheck(v, at)
		case "passive":
			h.Passive = r.passiveCheck(v, at)
		default:
			panic("unread key " + key.path)
		}
	})
	return h
}

// httpOnly are the keys that say what to send, and what to expect.
var httpOnly = []string{"path", "method", "host", "headers", "expectStatus", "expectBody"}

func (r *reader) activeCheck(n node, at *path) *ActiveCheck {
	c := defaultActiveCheck()
	given := map[string]node{}
	whole := at
	isMapping := r.mapping(n, at, activeSchema, "{path: /health}", func(key *schema, v node, at *path) {
		given[key.key] = v
		switch key.key {
		case "path":
			r.into(v, at, &c.Path, "a path, such as /health", routetable.CheckProbePath)
		case "method":
			r.into(v, at, &c.Method, "a method, such as GET", checkProbeMethod)
		case "host":
			r.into(v, at, &c.Host, "a host, such as shop.example.com", routetable.CheckProbeHost)
		case "expectBody":
			r.into(v, at, &c.ExpectBody, "a text that the body must contain", routetable.CheckExpectBody)
		case "headers":
			c.Headers = r.probeHeaders(v, at)
		case "expectStatus":
			c.ExpectStatus = r.statusRanges(v, at, c.ExpectStatus)
		case "interval":
			if d, ok := r.checkedDuration(v, at, routetable.CheckCheckInterval); ok {
				c.Interval = d
			}
		case "timeout":
			if d, ok := r.duration(v, at); ok {
				c.Timeout = d
			}
		case "jitter":
			if p, ok := r.percent(v, at, 0, 100); ok {
				c.JitterPercent = p
			}
		case "healthyAfter":
			if i, ok := r.integer(v, at, 1, routetable.MaxChecksInARow); ok {
				c.HealthyAfter = i
			}
		case "unhealthyAfter":
			if i, ok := r.integer(v, at, 1, routetable.MaxChecksInARow); ok {
				c.UnhealthyAfter = i
			}
		case "port":
			if i, ok := r.integer(v, at, 0, math.MaxUint16); ok {
				c.Port = uint16(i)
			}
		case "tcp":
			if b, ok := r.boolean(v, at); ok {
				c.TCP = b
			}
		default:
			panic("unread key " + key.path)
		}
	})
	if isMapping {
		r.activeRelations(n, whole, c, given)
	}
	if c.TCP {
		c.Method, c.Path, c.ExpectStatus = "", "", nil
	}
	return c
}

// activeRelations checks what the keys of an active check must be to each other.
func (r *reader) activeRelations(n node, at *path, c *ActiveCheck, given map[string]node) {
	if c.TCP {
		for _, key := range httpOnly {
			if v, ok := given[key]; ok {
				r.problem(v, at.field(key), "has no meaning with tcp: true, which only opens a connection; remove one of the two")
			}
		}
	}
	if v, ok := given["expectBody"]; ok {
		if err := routetable.CheckProbeBody(c.Method, c.ExpectBody); err != nil {
			r.problem(v, at.field("expectBody"), "%s", err)
		}
	}
	if err := routetable.CheckProbeTimeout(c.Timeout, c.Interval); err != nil {
		where, key := n, "timeout"
		for _, k := range []string{"interval", "timeout"} {
			if v, ok := given[k]; ok {
				where, key = v, k
			}
		}
		r.problem(where, at.field(key), "the timeout of %s", err)
	}
}

// checkProbeMethod refuses methods in lower case, as those of endpoints are.
func checkProbeMethod(method string) error {
	if err := checkMethod(method); err != nil {
		return err
	}
	return routetable.CheckProbeMethod(method)
}

// into reads a text that passes the check.
func (r *reader) into(n node, at *path, into *string, what string, check func(string) error) {
	if text, ok := r.text(n, at, what, check); ok {
		*into = text
	}
}

// probeHeaders reads the fields that a probe sends.
func (r *reader) probeHeaders(n node, at *path) (headers []Header) {
	if r.tagged(n, at) {
		return nil
	}
	if n.kind() != mapping {
		r.problem(n, at, "%s, expected a mapping of header names to values, such as {Authorization: \"Bearer x\"}", n.found())
		return nil
	}
	lines := map[string]int{}
	r.pairs(n, at, map[string]Position{}, func(key, v node, at *path) {
		value, ok := r.text(v, at, "the value of the header as a text", routetable.CheckHeaderValue)
		name := key.text()
		if err := routetable.CheckProbeHeaderName(name); err != nil {
			r.problem(key, at, "%s", err)
			return
		}
		if line, duplicate := lines[lower(name)]; duplicate {
			r.problem(key, at, "duplicate header; it is already given in line %d, and header names have no case: remove one of them", line)
			return
		}
		lines[lower(name)] = key.position().Line
		if ok {
			headers = append(headers, Header{Name: name, Value: value})
		}
	})
	if len(lines) > routetable.MaxProbeHeaders {
		r.problem(n, at, "has %d headers; at most %d are allowed", len(lines), routetable.MaxProbeHeaders)
	}
	slices.SortFunc(headers, func(a, b Header) int { return cmp.Compare(lower(a.Name), lower(b.Name)) })
	return headers
}

// statusRanges reads statuses: 200, or "2xx" for all from 200 to 299; one or a
// list.
func (r *reader) statusRanges(n node, at *path, otherwise []StatusRange) []StatusRange {
	var ranges []StatusRange
	one := func(n node, at *path) {
		if s, ok := r.status(n, at); ok {
			ranges = append(ranges, s)
		}
	}
	if n.kind() == scalar {
		one(n, at)
	} else if n.kind() == list && n.length() == 0 {
		r.problem(n, at, "the list is empty, so no backend could be healthy; leave out the key to expect 2xx")
	} else {
		r.list(n, at, "statuses", `write [200] or ["2xx"]`, one)
	}
	if len(ranges) == 0 {
		return otherwise
	}
	return merged(ranges)
}

func (r *reader) status(n node, at *path) (StatusRange, bool) {
	if r.tagged(n, at) {
		return StatusRange{}, false
	}
	const expected = `a status from 100 to 599, or a class such as "2xx"`
	text := strings.ToLower(n.text())
	if class, ok := strings.CutSuffix(text, "xx"); ok && n.kind() == scalar && len(class) == 1 && "1" <= class && class <= "5" {
		first := uint32(class[0]-'0') * 100
		return StatusRange{first, first + 99}, true
	}
	if n.kind() != scalar || n.quoted() || n.scalarType() != intType {
		hint := ""
		if status, ok := decimal(text); n.kind() == scalar && ok && 100 <= status && status <= 599 {
			hint = fmt.Sprintf("; write %d without quotes", status)
		}
		r.problem(n, at, "%s, expected %s%s", n.found(), expected, hint)
		return StatusRange{}, false
	}
	status, ok := decimal(text)
	if !ok || status < 100 || status > 599 {
		r.problem(n, at, "%s is out of range; expected %s", shorten(text), expected)
		return StatusRange{}, false
	}
	return StatusRange{uint32(status), uint32(status)}, true
}

// merged sorts ranges and joins those that touch.
func merged(ranges []StatusRange) []StatusRange {
	slices.SortFunc(ranges, func(a, b StatusRange) int { return cmp.Or(cmp.Compare(a.First, b.First), cmp.Compare(a.Last, b.Last)) })
	out := ranges[:1]
	for _, s := range ranges[1:] {
		if last := &out[len(out)-1]; s.First <= last.Last+1 {
			last.Last = max(last.Last, s.Last)
		} else {
			out = append(out, s)
		}
	}
	return out
}

func (r *reader) passiveCheck(n node, at *path) *PassiveCheck {
	c := defaultPassiveCheck()
	r.mapping(n, at, passiveSchema, "{consecutiveFailures: 5}", func(key *schema, v node, at *path) {
		switch key.key {
		case "consecutiveFailures":
			if i, ok := r.integer(v, at, 1, routetable.MaxFailuresInARow); ok {
				c.ConsecutiveFailures = i
			}
		case "ejectFor":
			if d, ok := r.duration(v, at); ok {
				c.EjectFor = d
			}
		case "maxEjectedPercent":
			if i, ok := r.integer(v, at, 1, 100); ok {
				c.MaxEjectedPercent = i
			}
		case "on5xx":
			if b, ok := r.boolean(v, at); ok {
				c.On5xx = b
			}
		default:
			panic("unread key " + key.path)
		}
	})
	return c
}

func (r *reader) dns(n node, at *path) {
	r.mapping(n, at, dnsSchema, "{interval: 10s}", func(key *schema, v node, at *path) {
		switch key.key {
		case "interval":
			if d, ok := r.checkedDuration(v, at, routetable.CheckResolveInterval); ok {
				r.config.ResolveInterval = d
			}
		default:
			panic("unread key " + key.path)
		}
	})
}
