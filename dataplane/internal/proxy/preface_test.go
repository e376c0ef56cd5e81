package proxy_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

// prefaced makes connections begin with a header of the PROXY protocol.
func prefaced(rt *routetablev1.RouteTable) *routetablev1.RouteTable {
	rt.ProxyProtocol = true
	return rt
}

const (
	proxyLine = "PROXY TCP4 203.0.113.9 192.0.2.2 4711 80\r\n"
	proxyBin  = "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0f\xcb\x00\x71\x09\xc0\x00\x02\x02\x12\x67\x00\x50\x04\x00\x00"
	proxyHere = "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"
)

// clientErrors returns how many connections and requests failed by their client for a
// reason.
func (w *world) clientErrors(reason string) float64 {
	w.Helper()
	return w.counts("dataplane_client_errors_total", "reason")[reason]
}

func TestProxyProtocol(t *testing.T) {
	for _, tt := range []struct{ name, header, client string }{
		{"version 1", proxyLine, "203.0.113.9"}, {"version 2", proxyBin, "203.0.113.9"},
		{"local", proxyHere, "192.0.2.1"}, {"unknown", "PROXY UNKNOWN\r\n", "192.0.2.1"},
		{"IPv6", "PROXY TCP6 2001:db8::1 ::1 1 2\r\n", "2001:db8::1"},
	} {
		for cut := range len(tt.header) + 1 {
			w := newWorldOf(t, prefaced(logged(wire(anything()), routetablev1.AccessLogFormat_ACCESS_LOG_FORMAT_COMMON)))
			c := w.accept()
			w.data(c, tt.header[:cut])
			w.data(c, tt.header[cut:]+get)
			if len(w.dialled) != 1 {
				t.Fatalf("%s, cut at %d: not forwarded", tt.name, cut)
			}
			o := w.dialled[0]
			w.connect(o)
			if got := forwarded(o.take()); !strings.HasPrefix(got, "X-Forwarded-For: "+tt.client+"\r\n") {
				t.Fatalf("%s, cut at %d: %s", tt.name, cut, got)
			}
			w.data(o, okay)
			if got := undated(c.take()); got != okaySent {
				t.Fatalf("%s, cut at %d: answered %q", tt.name, cut, got)
			}
			if line := w.logs("/log"); !strings.HasPrefix(line, tt.client+" - ") {
				t.Fatalf("%s, cut at %d: logged %s", tt.name, cut, line)
			}
			// Only the connection has a header, not each request.
			w.data(c, get)
			w.data(o, okay)
			if got := undated(c.take()); got != okaySent {
				t.Fatalf("%s, cut at %d: answered %q", tt.name, cut, got)
			}
		}
	}
}

func TestConnectionsWithoutAHeaderEnd(t *testing.T) {
	for _, tt := range []struct{ name, sent string }{
		{"HTTP", get}, {"one byte", "G"}, {"malformed", "PROXY TCP4 1.2.3.4\r\n" + get}, {"TLS", "\x16\x03\x01"}, {"version 3", proxyBin[:12] + "\x31"},
		{"endless", "PROXY UNKNOWN " + strings.Repeat("x", 200)},
	} {
		w := newWorldOf(t, prefaced(wire(anything())))
		c := w.accept()
		w.data(c, tt.sent)
		if !c.closed || len(c.sent) > 0 || len(w.dialled) > 0 {
			t.Errorf("%s: closed %t, answered %q", tt.name, c.closed, c.sent)
		}
		if n := w.clientErrors("no_proxy_header"); n != 1 {
			t.Errorf("%s: counted %v times", tt.name, n)
		}
		if requests, _ := w.totals(); requests != 0 {
			t.Errorf("%s: %d requests", tt.name, requests)
		}
	}
}

func TestTheHeaderMustComeInTime(t *testing.T) {
	w := newWorldOf(t, prefaced(wire(anything())))
	for _, sent := range []string{"", "PROXY TCP4 ", proxyBin[:20]} {
		c := w.accept()
		w.data(c, sent)
		w.pass(9*time.Second, c)
		if c.closed {
			t.Errorf("%q: closed too soon", sent)
		}
		w.pass(time.Second, c)
		if !c.closed || len(c.sent) > 0 {
			t.Errorf("%q: closed %t, answered %q", sent, c.closed, c.sent)
		}
	}
	if n := w.clientErrors("proxy_header_timeout"); n != 3 {
		t.Errorf("counted %v times", n)
	}
	// After it, the connection may rest as long as any other.
	c := w.accept()
	w.data(c, proxyLine)
	w.pass(59*time.Second, c)
	if c.closed {
		t.Error("closed with its header")
	}
}

func TestConnectionsThatEndBeforeTheirHeader(t *testing.T) {
	w := newWorldOf(t, prefaced(wire(anything())))
	for i, tt := range []struct {
		sent    string
		err     error
		counted float64
	}{{"", nil, 0}, {"", errors.New("reset"), 0}, {"PROXY", nil, 1}, {proxyBin[:20], errors.New("reset"), 2}} {
		c := w.accept()
		w.data(c, tt.sent)
		w.eof(c, tt.err)
		if n := w.clientErrors("no_proxy_header"); !c.closed || n != tt.counted {
			t.Errorf("%d: closed %t, counted %v", i, c.closed, n)
		}
	}
}

// Where there are trusted proxies, nobody else says who the client is; and what the
// header says is the peer that X-Forwarded-For is believed from, or not.
func TestProxyProtocolAndTrust(t *testing.T) {
	w := newWorldOf(t, prefaced(trusting(wire(anything()), "10.0.0.0/8")))
	c := w.accept()
	w.data(c, proxyLine+get)
	if n := w.clientErrors("untrusted_proxy_header"); !c.closed || n != 1 || len(w.dialled) > 0 {
		t.Errorf("closed %t, counted %v", c.closed, n)
	}
	for header, want := range map[string]string{
		proxyLine: "203.0.113.9",
		"PROXY TCP4 10.0.0.1 192.0.2.2 4711 80\r\n":  "9.9.9.9, 10.0.0.1",
		"PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\r\n": "9.9.9.9, 192.0.2.1",
		proxyHere: "9.9.9.9, 192.0.2.1",
	} {
		w := newWorldOf(t, prefaced(trusting(wire(anything()), "10.0.0.0/8", "192.0.2.1/32")))
		c := w.accept()
		w.data(c, header+"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n")
		w.connect(w.dialled[0])
		if got := w.dialled[0].take(); !strings.Contains(got, "\r\nX-Forwarded-For: "+want+"\r\n") {
			t.Errorf("%q:\n%s", header, got)
		}
	}
}

// A connection that is over the limit, or that a drain closes, needs no header.
func TestRefusedAndDrainedBeforeTheHeader(t *testing.T) {
	w := newWorldOf(t, prefaced(wire(anything())))
	c := w.fresh()
	w.tick()
	w.engine.Refuse(&c.conn, "192.0.2.1", &w.origin)
	w.settle()
	if !strings.HasPrefix(c.take(), "HTTP/1.1 503 ") {
		t.Error("not refused")
	}
	c = w.accept()
	if !w.engine.CloseIdle(&c.conn, int64(w.now)) || !c.closed {
		t.Error("not closed")
	}
}
