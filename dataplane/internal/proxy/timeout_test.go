package proxy_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

const upgrade = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"

// within is an endpoint whose requests may take so long as a whole.
func within(d time.Duration) *routetablev1.Endpoint {
	e := anything()
	e.Timeouts.Request = durationpb.New(d)
	return e
}

// TestEachTimeoutHasItsReason: who was too slow, and with what, shows in the answer,
// the metrics and the access log.
func TestEachTimeoutHasItsReason(t *testing.T) {
	const (
		post  = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc"
		large = "HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\nabc"
	)
	for _, tt := range []struct {
		name   string
		limit  time.Duration // for the whole request
		client string
		// What happens before time goes by.
		before func(w *world, c, o *end)
		after  time.Duration
		status string // of what the client is sent; "": it is sent nothing
		// What becomes of its connection at once.
		closed, aborted bool
		reason          string
	}{
		{name: "response", client: get, after: 30 * time.Second, status: "504", reason: "response_timeout"},
		{
			name: "idle, of the response", client: get, before: func(w *world, _, o *end) { w.data(o, large) },
			after: 90 * time.Second, status: "200", closed: true, reason: "idle_timeout",
		}, {
			name: "idle, of a request that the backend does not read", client: post, before: func(_ *world, _, o *end) { o.stuck, o.queue = true, []byte("abc") },
			after: 90 * time.Second, status: "504", reason: "idle_timeout",
		},
		{name: "the client's body", client: post, after: 90 * time.Second, status: "408", reason: "client body_timeout"},
		{
			name: "the client does not read", client: get, before: func(w *world, c, o *end) { c.stuck = true; w.data(o, large) },
			after: 90 * time.Second, closed: true, aborted: true, reason: "client read_timeout",
		},
		{name: "the client's head", client: get[:20], after: 10 * time.Second, status: "408", reason: "client head_timeout"},

		{name: "whole: no response", limit: 7 * time.Second, client: get, after: 7 * time.Second, status: "504", reason: "request_timeout"},
		{name: "whole, but the response is due before", limit: 31 * time.Second, client: get, after: 30 * time.Second, status: "504", reason: "response_timeout"},
		{
			name: "whole: the response does not end", limit: 7 * time.Second, client: get, before: func(w *world, _, o *end) { w.data(o, large) },
			after: 7 * time.Second, status: "200", closed: true, reason: "request_timeout",
		}, {
			name: "whole: the response does not end although it goes on", limit: 7 * time.Second, client: get,
			before: func(w *world, c, o *end) {
				w.data(o, large)
				for range 6 {
					w.pass(time.Second, c)
					w.data(o, "more")
				}
			},
			after: time.Second, status: "200", closed: true, reason: "request_timeout",
		}, {
			name: "whole: the backend does not read", limit: 7 * time.Second, client: post,
			before: func(_ *world, _, o *end) { o.stuck, o.queue = true, []byte("abc") },
			after:  7 * time.Second, status: "504", reason: "request_timeout",
		},
		{name: "whole: the client's body", limit: 7 * time.Second, client: post, after: 7 * time.Second, status: "408", reason: "client too_slow"},
		{
			name: "whole: the client reads slowly", limit: 7 * time.Second, client: get,
			before: func(w *world, c, o *end) {
				c.stuck = true
				w.data(o, large)
				w.pass(6*time.Second, c)
				c.queue = c.queue[1:]
			},
			after: time.Second, closed: true, aborted: true, reason: "client too_slow",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rt := jsonLogged()
			if tt.limit > 0 {
				rt.Endpoints[0].Timeouts.Request = durationpb.New(tt.limit)
			}
			w := newLoggedWorld(t, rt)
			c := w.accept()
			w.data(c, tt.client)
			if len(w.dialled) > 0 {
				w.connect(w.dialled[0])
				if tt.before != nil {
					tt.before(w, c, w.dialled[0])
				}
			}
			w.pass(tt.after-time.Millisecond, c)
			if c.closed || w.logs("/log") != "" {
				t.Fatal("too early")
			}
			w.pass(time.Millisecond, c)
			if got := c.take(); !strings.HasPrefix(got, strings.TrimSuffix("HTTP/1.1 "+tt.status, "HTTP/1.1 ")) || tt.status == "" && got != "" {
				t.Errorf("the client gets %q", got)
			}
			if c.closed != tt.closed || c.aborted != tt.aborted {
				t.Errorf("closed %t, with a reset %t", c.closed, c.aborted)
			}
			backends, clients := w.errors()
			reason := strings.TrimPrefix(tt.reason, "client ")
			if want := fmt.Sprintf("map[%s:1]", reason); reason == tt.reason && (backends != want || clients != "map[]") ||
				reason != tt.reason && (backends != "map[]" || clients != want) {
				t.Errorf("counted for backends: %s, for clients: %s", backends, clients)
			}
			if got := w.logs("/log"); !strings.Contains(got, `"error":"`+reason+`"`) {
				t.Errorf("logged %s", got)
			}
		})
	}
}

// TestRequestTimeoutWhileConnecting: the driver watches the time to connect only.
func TestRequestTimeoutWhileConnecting(t *testing.T) {
	w := newWorld(t, within(7*time.Second))
	c := w.accept()
	w.data(c, get)
	w.pass(7*time.Second-1, c)
	if got := c.take(); got != "" {
		t.Fatalf("too early: %q", got)
	}
	w.pass(1, c)
	if got := c.take(); !strings.HasPrefix(got, "HTTP/1.1 504 ") || !w.dialled[0].closed {
		t.Errorf("got %q; dialling ended: %t", got, w.dialled[0].closed)
	}
	if backends, _ := w.errors(); backends != "map[request_timeout:1]" {
		t.Errorf("counted %s", backends)
	}
	w.data(c, get) // has time of its own
	w.connect(w.dialled[1])
	w.pass(6*time.Second, c)
	w.data(w.dialled[1], okay)
	if got := undated(c.take()); got != okaySent {
		t.Errorf("got %q", got)
	}
	w.pass(30*time.Second, c)
	if c.closed {
		t.Error("the connection has taken over the deadline of its last request")
	}
}

// TestTunnelsHaveNoRequestTimeout: they have been answered when they begin.
func TestTunnelsHaveNoRequestTimeout(t *testing.T) {
	w := newWorld(t, within(7*time.Second))
	c := w.accept()
	w.data(c, upgrade)
	o := w.dialled[0]
	w.connect(o)
	w.data(o, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
	for range 3 {
		w.pass(80*time.Second, c)
		w.data(o, "x")
	}
	if c.closed {
		t.Fatal("cut")
	}
	w.pass(90*time.Second, c)
	if !c.closed {
		t.Error("lasts although nothing moves")
	}
}
