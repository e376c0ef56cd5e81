package proxy_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

// rated is an endpoint for all requests with a rate.
func rated(requests, burst uint32, key *routetablev1.Key) *routetablev1.Endpoint {
	e := anything()
	e.RateLimit = &routetablev1.RateLimit{Requests: requests, Per: durationpb.New(time.Second), Burst: burst, Key: key}
	return e
}

const tooManySent = "HTTP/1.1 429 Too Many Requests\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 34\r\nRetry-After: 1\r\n\r\nMore requests have come than may.\n"

// forwarded sends a request and reports whether a backend got it, which answers. It
// must be the backend's, or a refusal by the rate.
func (w *world) forwarded(c *end, request string) bool {
	w.Helper()
	before := len(w.dialled)
	w.data(c, request)
	if len(w.dialled) > before {
		w.connect(w.dialled[before])
	}
	for _, o := range w.dialled {
		if got := o.take(); got != "" {
			w.data(o, okay)
			if got := undated(c.take()); got != okaySent {
				w.Errorf("the answer is %q", got)
			}
			return true
		}
	}
	if got := undated(c.take()); got != tooManySent {
		w.Errorf("refused with %q", got)
	}
	return false
}

func TestRateLimit(t *testing.T) {
	w := newWorld(t, rated(10, 3, nil))
	a, b := w.accept(), w.accept()
	for i, want := range []bool{true, true, true, false, false} {
		if got := w.forwarded([]*end{a, b}[i%2], get); got != want {
			t.Errorf("request %d is forwarded: %t", i, got)
		}
	}
	w.pass(100 * time.Millisecond)
	if !w.forwarded(a, get) || w.forwarded(b, get) {
		t.Error("not one more after a tenth of a second")
	}
	if got := w.counts("dataplane_requests_refused_total", "reason"); len(got) != 1 || got["rate_limit"] != 3 {
		t.Errorf("refused: %v", got)
	}
	if w.backends.State("origin:80").InFlight() != 0 {
		t.Error("a refused request is in flight")
	}

	// A table in which the rate is the same goes on counting, another one begins.
	same := wire(rated(10, 3, nil))
	same.Port++
	w.apply(same)
	if w.forwarded(a, get) {
		t.Error("the same rate has begun anew")
	}
	w.apply(wire(rated(10, 2, nil)))
	for i := range 3 {
		if got := w.forwarded(a, get); got != (i < 2) {
			t.Errorf("request %d of another rate is forwarded: %t", i, got)
		}
	}
	w.apply(wire(anything()))
	for range 10 {
		if !w.forwarded(a, get) {
			t.Fatal("refused without a rate")
		}
	}
}

func TestRateLimitOfTheFleet(t *testing.T) {
	w := newWorld(t, rated(10, 10, nil))
	c := w.accept()
	w.state.Fleet.Set(2)
	for i := range 7 {
		if got := w.forwarded(c, get); got != (i < 5) {
			t.Errorf("request %d of a half of 10 is forwarded: %t", i, got)
		}
	}
	w.pass(100 * time.Millisecond)
	if w.forwarded(c, get) {
		t.Error("forwarded after half of the time")
	}
	w.state.Fleet.Set(1)
	if !w.forwarded(c, get) {
		t.Error("not forwarded alone")
	}
}

func TestRateLimitByKey(t *testing.T) {
	const named = "GET /x HTTP/1.1\r\nHost: a\r\nX-Key: "
	w := newWorld(t, rated(1, 2, &routetablev1.Key{Kind: routetablev1.KeyKind_KEY_KIND_HEADER, Name: "x-key"}))
	c := w.accept()
	for i, tt := range []struct {
		request string
		want    bool
	}{
		{named + "1\r\n\r\n", true}, {named + "2\r\n\r\n", true}, {named + " 1 \r\n\r\n", true}, {named + "1\r\n\r\n", false},
		{strings.Replace(named, "X-Key", "x-kEY", 1) + "1\r\n\r\n", false}, {named + "2\r\n\r\n", true}, {named + "2\r\n\r\n", false},
		{get, true}, {get, true}, {get, false}, {named + "\r\n\r\n", true},
	} {
		if got := w.forwarded(c, tt.request); got != tt.want {
			t.Errorf("request %d is forwarded: %t", i, got)
		}
	}

	w = newWorld(t, rated(1, 1, &routetablev1.Key{Kind: routetablev1.KeyKind_KEY_KIND_CLIENT_IP}))
	c = w.accept()
	other := w.acceptFrom("192.0.2.2")
	if !w.forwarded(c, get) || w.forwarded(c, get) || !w.forwarded(other, get) || w.forwarded(other, get) {
		t.Error("clients are not counted apart")
	}
}
