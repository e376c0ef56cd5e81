package proxy_test

import (
	"regexp"
	"strings"
	"testing"

	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// trusting makes a table trust these proxies.
func trusting(rt *routetablev1.RouteTable, prefixes ...string) *routetablev1.RouteTable {
	rt.TrustedProxies = prefixes
	return rt
}

var forwardedLine = regexp.MustCompile(`(?m)^X-Forwarded-.*\r\n`)

// forwarded returns the X-Forwarded fields of a request.
func forwarded(head string) string { return strings.Join(forwardedLine.FindAllString(head, -1), "") }

// The peer of a world's client is 192.0.2.1.
func TestForwardedFields(t *testing.T) {
	const (
		own      = "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\n"
		ownProto = "X-Forwarded-Proto: http\r\n"
		ownHost  = "X-Forwarded-Host: a\r\n"
		says     = "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.example\r\n"
		believed = "X-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.example\r\nX-Forwarded-For: 203.0.113.9, 192.0.2.1\r\n"
	)
	tests := []struct {
		name         string
		trusted      []string
		fields, want string
		client       string // as logged
	}{
		{"nobody is trusted", nil, says, own, "192.0.2.1"},
		{"the peer is not trusted", []string{"10.0.0.0/8"}, says, own, "192.0.2.1"},
		{"the peer is trusted", []string{"192.0.2.0/24"}, says, believed, "203.0.113.9"},
		{"and says nothing", []string{"192.0.2.0/24"}, "", own, "192.0.2.1"},
		{
			"several proxies", []string{"10.0.0.0/8", "192.0.2.0/24"}, "X-Forwarded-For: 198.51.100.1, 203.0.113.9, 10.1.2.3\r\n",
			"X-Forwarded-For: 198.51.100.1, 203.0.113.9, 10.1.2.3, 192.0.2.1\r\n" + ownProto + ownHost, "203.0.113.9",
		}, {
			"over several lines", []string{"10.0.0.0/8", "192.0.2.0/24"}, "x-forwarded-for: 198.51.100.1,203.0.113.9\r\nX-FORWARDED-FOR:\t10.1.2.3 ,,\r\nX-Forwarded-For:\r\n",
			"X-Forwarded-For: 198.51.100.1,203.0.113.9, 10.1.2.3 ,,, 192.0.2.1\r\n" + ownProto + ownHost, "203.0.113.9",
		}, {
			"all are proxies", []string{"10.0.0.0/8", "192.0.2.0/24"}, "X-Forwarded-For: 10.0.0.1, 10.0.0.2\r\n",
			"X-Forwarded-For: 10.0.0.1, 10.0.0.2, 192.0.2.1\r\n" + ownProto + ownHost, "10.0.0.1",
		}, {
			"nonsense ends the chain", []string{"10.0.0.0/8", "192.0.2.0/24"}, "X-Forwarded-For: 203.0.113.9, unknown, 10.1.2.3\r\n",
			"X-Forwarded-For: 203.0.113.9, unknown, 10.1.2.3, 192.0.2.1\r\n" + ownProto + ownHost, "10.1.2.3",
		}, {
			"with a port", []string{"192.0.2.1/32"}, "X-Forwarded-For: 203.0.113.9:4711\r\n",
			"X-Forwarded-For: 203.0.113.9:4711, 192.0.2.1\r\n" + ownProto + ownHost, "203.0.113.9",
		}, {
			"IPv6", []string{"192.0.2.1/32"}, "X-Forwarded-For: 2001:DB8:0::1\r\n",
			"X-Forwarded-For: 2001:DB8:0::1, 192.0.2.1\r\n" + ownProto + ownHost, "2001:db8::1",
		}, {
			"IPv6 with a port", []string{"192.0.2.1/32"}, "X-Forwarded-For: [2001:db8::1]:80\r\n",
			"X-Forwarded-For: [2001:db8::1]:80, 192.0.2.1\r\n" + ownProto + ownHost, "2001:db8::1",
		}, {
			"IPv4 as IPv6", []string{"192.0.2.1/32"}, "X-Forwarded-For: ::ffff:203.0.113.9\r\n",
			"X-Forwarded-For: ::ffff:203.0.113.9, 192.0.2.1\r\n" + ownProto + ownHost, "203.0.113.9",
		}, {
			"broken brackets", []string{"192.0.2.1/32"}, "X-Forwarded-For: [2001:db8::1]x\r\n",
			"X-Forwarded-For: [2001:db8::1]x, 192.0.2.1\r\n" + ownProto + ownHost, "192.0.2.1",
		}, {
			"two lines of what there is one of", []string{"192.0.2.1/32"}, "X-Forwarded-Proto: https\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: b\r\nX-Forwarded-Host: c\r\n",
			own, "192.0.2.1",
		}, {
			"named by Connection", []string{"192.0.2.1/32"}, says + "Connection: x-forwarded-for, x-forwarded-proto, x-forwarded-host\r\n",
			own, "192.0.2.1",
		}, {
			"disguised", []string{"192.0.2.1/32"}, strings.ReplaceAll(says, "Forwarded-", "Forwarded_"),
			own, "192.0.2.1",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rt := trusting(logged(wire(anything()), routetablev1.AccessLogFormat_ACCESS_LOG_FORMAT_COMMON), tt.trusted...)
			if err := routetable.Validate(rt); err != nil {
				t.Fatal(err)
			}
			w := newWorldOf(t, rt)
			c := w.accept()
			for range 2 { // the peer is looked up once
				w.data(c, "GET / HTTP/1.1\r\nHost: a\r\n"+tt.fields+"\r\n")
				o := w.dialled[0]
				if o.dialling {
					w.connect(o)
				}
				if got := forwarded(o.take()); got != tt.want {
					t.Errorf("got\n%swant\n%s", got, tt.want)
				}
				w.data(o, okay)
				if line := w.logs("/log"); !strings.HasPrefix(line, tt.client+" - ") {
					t.Errorf("logged: %s", line)
				}
			}
		})
	}
}

// A connection goes by the proxies that the table of each request trusts.
func TestTrustFollowsTheTable(t *testing.T) {
	w := newWorld(t, anything())
	c := w.accept()
	for _, tt := range []struct {
		trusted []string
		want    string
	}{
		{nil, "192.0.2.1"}, {[]string{"192.0.2.1/32"}, "9.9.9.9, 192.0.2.1"}, {[]string{"192.0.2.2/32"}, "192.0.2.1"},
		{[]string{"192.0.2.0/24"}, "9.9.9.9, 192.0.2.1"}, {nil, "192.0.2.1"}, {[]string{"192.0.2.0/24"}, "9.9.9.9, 192.0.2.1"},
	} {
		w.apply(trusting(wire(anything()), tt.trusted...))
		w.data(c, "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n")
		o := w.dialled[0]
		if o.dialling {
			w.connect(o)
		}
		if got := o.take(); !strings.Contains(got, "X-Forwarded-For: "+tt.want+"\r\n") {
			t.Errorf("trusting %v:\n%s", tt.trusted, got)
		}
		w.data(o, okay)
	}
}
