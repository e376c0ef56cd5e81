package routetable_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/durationpb"

	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

func activeCheck() *routetablev1.ActiveCheck {
	return &routetablev1.ActiveCheck{
		Method: "GET", Path: "/health?full=1", Host: "shop.example.com:81",
		Headers:      []*routetablev1.Header{{Name: "Authorization", Value: "Bearer x"}, {Name: "x-probe", Value: ""}},
		ExpectStatus: []*routetablev1.StatusRange{{First: 200, Last: 299}, {First: 401, Last: 401}},
		ExpectBody:   "ok", Port: 9000,
		Interval: durationpb.New(5 * time.Second), Timeout: durationpb.New(time.Second),
		JitterPercent: 20, HealthyAfter: 2, UnhealthyAfter: 3,
	}
}

func tcpCheck() *routetablev1.ActiveCheck {
	return &routetablev1.ActiveCheck{
		Tcp: true, Interval: durationpb.New(5 * time.Second), Timeout: durationpb.New(time.Second), HealthyAfter: 1, UnhealthyAfter: 1,
	}
}

func passiveCheck() *routetablev1.PassiveCheck {
	return &routetablev1.PassiveCheck{ConsecutiveFailures: 5, EjectFor: durationpb.New(10 * time.Second), MaxEjectedPercent: 50, On_5Xx: true}
}

func TestValidateHealthChecks(t *testing.T) {
	active := func(change func(*routetablev1.ActiveCheck)) func(*routetablev1.RouteTable) {
		return func(rt *routetablev1.RouteTable) {
			c := activeCheck()
			change(c)
			rt.Endpoints[1].ActiveCheck = c
		}
	}
	tcp := func(change func(*routetablev1.ActiveCheck)) func(*routetablev1.RouteTable) {
		return func(rt *routetablev1.RouteTable) {
			c := tcpCheck()
			change(c)
			rt.Endpoints[1].ActiveCheck = c
		}
	}
	passive := func(change func(*routetablev1.PassiveCheck)) func(*routetablev1.RouteTable) {
		return func(rt *routetablev1.RouteTable) {
			c := passiveCheck()
			change(c)
			rt.Endpoints[1].PassiveCheck = c
		}
	}
	ranges := func(bounds ...uint32) (list []*routetablev1.StatusRange) {
		for i := 0; i < len(bounds); i += 2 {
			list = append(list, &routetablev1.StatusRange{First: bounds[i], Last: bounds[i+1]})
		}
		return list
	}
	type check = routetablev1.ActiveCheck
	unknown := protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1)
	tests := []struct {
		name   string
		change func(*routetablev1.RouteTable)
		want   string // the path and part of the message of the only problem; empty: it is valid
	}{
		{"HTTP", active(func(*check) {}), ""},
		{"TCP", tcp(func(*check) {}), ""},
		{"TCP on a port", tcp(func(c *check) { c.Port = 65535 }), ""},
		{"passive", passive(func(*routetablev1.PassiveCheck) {}), ""},
		{"no host, headers and body", active(func(c *check) { c.Host, c.Headers, c.ExpectBody = "", nil, "" }), ""},
		{"IPv6 host", active(func(c *check) { c.Host = "[::1]:81" }), ""},
		{"least and most", active(func(c *check) {
			c.Interval, c.Timeout, c.JitterPercent = durationpb.New(100*time.Millisecond), durationpb.New(100*time.Millisecond), 100
			c.ExpectStatus = ranges(100, 100, 102, 599)
		}), ""},

		{"unknown field", active(func(c *check) { c.ProtoReflect().SetUnknown(unknown) }), "active_check: has a field that this release does not know"},
		{"no method", active(func(c *check) { c.Method = "" }), "active_check.method: is empty"},
		{"tunnel", active(func(c *check) { c.Method = "CONNECT" }), `active_check.method: "CONNECT" opens a tunnel`},
		{"no path", active(func(c *check) { c.Path = "" }), `active_check.path: "" does not begin with a slash`},
		{"relative path", active(func(c *check) { c.Path = "x" }), `active_check.path: "x" does not begin with a slash`},
		{"path with a space", active(func(c *check) { c.Path = "/a b" }), `active_check.path: "/a b" contains a space`},
		{"path with a line break", active(func(c *check) { c.Path = "/a\r\nb" }), `active_check.path: "/a\r\nb" contains a space, control`},
		{"path with a fragment", active(func(c *check) { c.Path = "/a#b" }), `active_check.path: "/a#b" has a fragment`},
		{"path with a bad escape", active(func(c *check) { c.Path = "/a%2" }), `active_check.path: "/a%2" has a %`},
		{"long path", active(func(c *check) { c.Path = "/" + strings.Repeat("a", 4096) }), `active_check.path: "/aaa`},
		{"host with a path", active(func(c *check) { c.Host = "a/b" }), `active_check.host: "a/b" is not a host`},
		{"host with a bad port", active(func(c *check) { c.Host = "a:0" }), `active_check.host: "a:0" is not a host`},
		{"host with a line break", active(func(c *check) { c.Host = "a\nb" }), `active_check.host: "a\nb" is not a host`},
		{"header without a name", active(func(c *check) { c.Headers[0].Name = "" }), "active_check.headers[0].name: is empty"},
		{"bad header name", active(func(c *check) { c.Headers[0].Name = "A:" }), `active_check.headers[0].name: "A:" is not a valid header field name`},
		{"host as a header", active(func(c *check) { c.Headers[0].Name = "Host" }), "active_check.headers[0].name: the Host field of a probe is set with host"},
		{"framing", active(func(c *check) { c.Headers[0].Name = "Content-Length" }), `active_check.headers[0].name: "Content-Length" cannot be set`},
		{"upgrade", active(func(c *check) { c.Headers[0].Name = "UPGRADE" }), `active_check.headers[0].name: "UPGRADE" cannot be set`},
		{"header value", active(func(c *check) { c.Headers[0].Value = "a\nb" }), `active_check.headers[0].value: "a\nb" contains a control`},
		{"header twice", active(func(c *check) { c.Headers[0].Name = "X-Probe" }), `active_check.headers[1]: "x-probe" is there twice`},
		{"headers not sorted", active(func(c *check) { c.Headers[0].Name = "Y" }), `active_check.headers[1]: "x-probe" comes after "y"`},
		{"nil header", active(func(c *check) { c.Headers[1] = nil }), "active_check.headers[1]: is not set"},
		{"many headers", active(func(c *check) {
			c.Headers = nil
			for i := range 101 {
				c.Headers = append(c.Headers, &routetablev1.Header{Name: "x-" + string(rune('a'+i/26)) + string(rune('a'+i%26))})
			}
		}), "active_check.headers: has 101 fields; at most 100 are allowed"},
		{"no status", active(func(c *check) { c.ExpectStatus = nil }), "active_check.expect_status: is empty; nothing would be healthy"},
		{"low status", active(func(c *check) { c.ExpectStatus = ranges(99, 200) }), "active_check.expect_status[0].first: 99 is out of range"},
		{"high status", active(func(c *check) { c.ExpectStatus = ranges(200, 600) }), "active_check.expect_status[0].last: 600 is out of range"},
		{"range that ends too early", active(func(c *check) { c.ExpectStatus = ranges(201, 200) }), "active_check.expect_status[0]: ends before it begins"},
		{"ranges that touch", active(func(c *check) { c.ExpectStatus = ranges(200, 201, 202, 202) }), "active_check.expect_status[1]: begins at 202, which belongs to the range before it"},
		{"nil range", active(func(c *check) { c.ExpectStatus[1] = nil }), "active_check.expect_status[1]: is not set"},
		{"long body", active(func(c *check) { c.ExpectBody = strings.Repeat("a", 4097) }), "active_check.expect_body: \"aaa"},
		{"body not UTF-8", active(func(c *check) { c.ExpectBody = "\xff" }), "active_check.expect_body: \"\\xff\" is not valid UTF-8"},
		{"body of HEAD", active(func(c *check) { c.Method = "HEAD" }), "active_check.expect_body: the answer to HEAD has no body; use the method GET"},
		{"port", active(func(c *check) { c.Port = 65536 }), "active_check.port: 65536 is out of range; it must be 0 to 65535"},
		{"no interval", active(func(c *check) { c.Interval = nil }), "active_check.interval: is not set"},
		{"short interval", active(func(c *check) {
			c.Interval, c.Timeout = durationpb.New(99*time.Millisecond), durationpb.New(time.Millisecond)
		}), "active_check.interval: 99ms is out of range; it must be at least 100ms and at most 24h0m0s"},
		{"no timeout", active(func(c *check) { c.Timeout = nil }), "active_check.timeout: is not set"},
		{"timeout", active(func(c *check) { c.Timeout = durationpb.New(0) }), "active_check.timeout: 0s is out of range"},
		{"long timeout", active(func(c *check) { c.Timeout = durationpb.New(6 * time.Second) }), "active_check.timeout: 6s is longer than the interval of 5s"},
		{"jitter", active(func(c *check) { c.JitterPercent = 101 }), "active_check.jitter_percent: 101 is out of range"},
		{"healthy after", active(func(c *check) { c.HealthyAfter = 0 }), "active_check.healthy_after: 0 is out of range"},
		{"unhealthy after", active(func(c *check) { c.UnhealthyAfter = 1001 }), "active_check.unhealthy_after: 1001 is out of range"},
		{"TCP that sends", tcp(func(c *check) { c.Path = "/" }), "active_check: probes with a connection alone, and says what to send or to expect"},
		{"TCP that expects", tcp(func(c *check) { c.ExpectStatus = ranges(200, 200) }), "active_check: probes with a connection alone"},

		{"no failures", passive(func(c *routetablev1.PassiveCheck) { c.ConsecutiveFailures = 0 }), "passive_check.consecutive_failures: 0 is out of range"},
		{"no time", passive(func(c *routetablev1.PassiveCheck) { c.EjectFor = nil }), "passive_check.eject_for: is not set"},
		{"no share", passive(func(c *routetablev1.PassiveCheck) { c.MaxEjectedPercent = 0 }), "passive_check.max_ejected_percent: 0 is out of range; it must be 1 to 100"},
		{"too much", passive(func(c *routetablev1.PassiveCheck) { c.MaxEjectedPercent = 101 }), "passive_check.max_ejected_percent: 101"},
		{"unknown passive field", passive(func(c *routetablev1.PassiveCheck) { c.ProtoReflect().SetUnknown(unknown) }), "passive_check: has a field that this release"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			rt := small()
			test.change(rt)
			want := test.want
			if want != "" {
				want = "endpoints[1]." + want
			}
			checkProblem(t, routetable.Validate(rt), want)
		})
	}
}

func TestValidateResolveInterval(t *testing.T) {
	for d, want := range map[time.Duration]string{
		100 * time.Millisecond: "",
		24 * time.Hour:         "",
		99 * time.Millisecond:  "resolve_interval: 99ms is out of range; it must be at least 100ms",
		25 * time.Hour:         "resolve_interval: 25h0m0s is out of range",
	} {
		rt := small()
		rt.ResolveInterval = durationpb.New(d)
		checkProblem(t, routetable.Validate(rt), want)
	}
}

// checkProblem fails unless err is one problem that begins with want, or nil if want
// is empty.
func checkProblem(t *testing.T, err error, want string) {
	t.Helper()
	problems := routetable.Problems(err)
	switch {
	case want == "" && err == nil:
	case want == "" || len(problems) != 1 || !strings.HasPrefix(problems[0].Error(), want):
		t.Errorf("got  %v\nwant %q", err, want)
	}
}
