//go:build !race

package proxy_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

// steady prepares a client and a backend connection that are both open, and
// returns one request and response over them.
func steady(t testing.TB, rt *routetablev1.RouteTable, request, response string) (exchange func()) {
	w := newWorldOf(t, rt)
	c := w.accept()
	w.data(c, request)
	o := w.dialled[0]
	w.connect(o)
	w.data(o, response)
	in, out := make([]byte, len(request)), make([]byte, len(response))
	return func() {
		c.sent, o.sent = c.sent[:0], o.sent[:0]
		w.now += time.Microsecond
		w.tick()
		copy(in, request)
		w.engine.Data(&c.conn, in)
		copy(out, response)
		w.engine.Data(&o.conn, out)
		if _, lines := w.log.Shard(0).Next(); len(lines) > 1<<20 {
			w.log.Shard(0).Done(len(lines))
		}
		if len(c.sent) == 0 || len(o.sent) == 0 || len(w.dialled) != 1 {
			t.Fatal("not forwarded over the open connection")
		}
	}
}

const browser = "GET /index.html?x=1 HTTP/1.1\r\nHost: a.example\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n" +
	"Accept: text/html,application/xhtml+xml\r\nAccept-Encoding: gzip, deflate, br\r\nConnection: keep-alive\r\nCookie: a=b; c=d\r\nX-Forwarded-For: 203.0.113.9, 10.0.0.1\r\n\r\n"

var steadyCases = []struct{ name, request, response string }{
	{"GET", browser, okay},
	{"chunked", browser, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"},
	{"POST", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde", okay},
}

// steadyTables are what a request costs more or less with.
var steadyTables = []struct {
	name string
	rt   *routetablev1.RouteTable
}{
	{"plain", wire(anything())},
	{"retry", wire(retrying(1, nil))},
	{"id", withID(wire(anything()))},
	{"JSON log", logged(wire(anything()), routetablev1.AccessLogFormat_ACCESS_LOG_FORMAT_JSON)},
	{"trusted proxy", trusting(wire(anything()), "10.0.0.0/8", "192.0.2.0/24")},
	{"limits", wire(limited(anything()))},
	{"least request", wire(oneOf(routetablev1.Policy_POLICY_LEAST_REQUEST, nil))},
	{"hash of a cookie", wire(oneOf(routetablev1.Policy_POLICY_CONSISTENT_HASH,
		&routetablev1.Key{Kind: routetablev1.KeyKind_KEY_KIND_COOKIE, Name: "c"}))}, // which POST does not have
	{"hash of the client", wire(oneOf(routetablev1.Policy_POLICY_CONSISTENT_HASH,
		&routetablev1.Key{Kind: routetablev1.KeyKind_KEY_KIND_CLIENT_IP}))},
	{"edits", withID(wire(edited(everything, everything)))},
	{"combined log, id", withID(logged(wire(anything()), routetablev1.AccessLogFormat_ACCESS_LOG_FORMAT_COMBINED))},
}

// limited gives an endpoint all limits there are, and room for everything.
func limited(e *routetablev1.Endpoint) *routetablev1.Endpoint {
	e.RateLimit = &routetablev1.RateLimit{
		Requests: 1_000_000, Per: durationpb.New(time.Second), Burst: 1000,
		Key: &routetablev1.Key{Kind: routetablev1.KeyKind_KEY_KIND_CLIENT_IP},
	}
	e.MaxRequests, e.Queue = 10, &routetablev1.Queue{Size: 10, Timeout: durationpb.New(time.Second)}
	e.Pool[0].MaxRequests = 10
	return e
}

// everything uses every variable.
var everything = &routetablev1.HeaderEdits{
	Set: []*routetablev1.Header{
		field("X-A", "${client} ${endpoint} ${host} ${method} ${path}?${query} ${requestId} ${scheme}"), field("X-B", "b"),
	},
	Remove: []string{"cookie", "x-powered-by"},
}

// TestAnsweringDoesNotAllocate is about endpoints that answer by themselves.
func TestAnsweringDoesNotAllocate(t *testing.T) {
	fixed := answering(&routetablev1.Respond{Status: 200, Body: []byte("ok"), Headers: []*routetablev1.Header{field("X-A", "${client}")}})
	fixed.ResponseHeaders = everything
	for name, e := range map[string]*routetablev1.Endpoint{
		"respond": fixed, "redirect": redirecting("https://${host}${path}?${query}", 302),
	} {
		w := newWorldOf(t, withID(wire(e)))
		c := w.accept()
		in := []byte(strings.Replace(browser, "?x=1", "?\"x", 1))
		if n := testing.AllocsPerRun(1000, func() {
			c.sent = c.sent[:0]
			w.now++
			w.tick()
			w.engine.Data(&c.conn, in)
			if len(c.sent) == 0 {
				t.Fatal("not answered")
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// TestKeepAliveRequestDoesNotAllocate. Race detection allocates by itself.
func TestKeepAliveRequestDoesNotAllocate(t *testing.T) {
	for _, tt := range steadyCases {
		for _, table := range steadyTables {
			if n := testing.AllocsPerRun(1000, steady(t, table.rt, tt.request, tt.response)); n != 0 {
				t.Errorf("%s, %s: %v allocations", tt.name, table.name, n)
			}
		}
	}
}

// TestRetryHardlyAllocates: its state, and the list of who has been tried. What was
// held of the request comes from the free buffers and returns to them.
func TestRetryHardlyAllocates(t *testing.T) {
	w := newWorld(t, retrying(2, nil))
	c := w.accept()
	for range 2 {
		w.data(c, put)
		w.connect(w.newest())
		w.data(w.newest(), okay)
	}
	request, failure, response := []byte(put), []byte(busy), []byte(okay)
	give := func(e *end, p []byte) {
		e.sent = e.sent[:0]
		w.engine.Data(&e.conn, p)
	}
	turn := 0
	exchange := func() {
		w.now += 100 * time.Millisecond // so that there is budget
		w.tick()
		c.sent = c.sent[:0]
		give(c, request)
		give(w.dialled[turn%2], failure)
		give(w.dialled[1-turn%2], response)
		if len(c.sent) == 0 || len(w.dialled) != 2 {
			t.Fatal("not sent again")
		}
	}
	if n := testing.AllocsPerRun(1000, exchange); n > 2 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkExchange(b *testing.B) {
	for _, tt := range steadyCases {
		for _, table := range steadyTables {
			b.Run(tt.name+"/"+table.name, func(b *testing.B) {
				exchange := steady(b, table.rt, tt.request, tt.response)
				b.ReportAllocs()
				for b.Loop() {
					exchange()
				}
			})
		}
	}
}
