package proxy_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// queued is an endpoint for all requests of which so many may be in flight, and others
// wait for up to a second.
func queued(most, size uint32) *routetablev1.Endpoint {
	e := anything()
	e.MaxRequests = most
	if size > 0 {
		e.Queue = &routetablev1.Queue{Size: size, Timeout: durationpb.New(time.Second)}
	}
	return e
}

const unavailableSent = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 33\r\nRetry-After: 1\r\n\r\nNobody can take the request now.\n"

// named is a request that a backend can tell from others.
func named(name string) string { return "GET /" + name + " HTTP/1.1\r\nHost: a\r\n\r\n" }

// atOrigin returns the names of the requests that have come to backends since it was
// asked last, and where the last of them is.
func (w *world) atOrigin() (names string, at *end) {
	w.Helper()
	w.runPosted()
	for _, o := range w.dialled {
		if o.dialling {
			w.connect(o)
		}
		for _, line := range strings.Split(o.take(), "\r\n") {
			if name, ok := strings.CutPrefix(line, "GET /"); ok {
				names += strings.TrimSuffix(name, " HTTP/1.1")
				at = o
			}
		}
	}
	return names, at
}

// wantAtOrigin fails the test unless these requests have come, and returns where to.
func (w *world) wantAtOrigin(want string) *end {
	w.Helper()
	names, at := w.atOrigin()
	if names != want {
		w.Errorf("at backends: %q, want %q", names, want)
	}
	return at
}

func (w *world) wantSent(c *end, want string) {
	w.Helper()
	if got := undated(c.take()); got != want {
		w.Errorf("sent to the client: %q, want %q", got, want)
	}
}

func (w *world) wantRefused(reason string, n float64) {
	w.Helper()
	if got := w.counts("dataplane_requests_refused_total", "reason"); got[reason] != n {
		w.Errorf("refused: %v, want %v for %s", got, n, reason)
	}
}

func (w *world) wantQueued(n float64) {
	w.Helper()
	if got := w.counts("dataplane_requests_queued", "endpoint")["all"]; got != n {
		w.Errorf("%v requests wait, want %v", got, n)
	}
}

// inside returns how many requests the endpoint has let in.
func (w *world) inside() int { return w.live.Load().Endpoint("all").Admission.Gate.InFlight() }

func (w *world) clients(n int) []*end {
	all := make([]*end, n)
	for i := range all {
		all[i] = w.accept()
	}
	return all
}

func TestRequestsWaitInOrder(t *testing.T) {
	w := newWorld(t, queued(2, 2))
	c := w.clients(5)
	for i, client := range c {
		w.data(client, named(fmt.Sprint(i)))
	}
	last := w.wantAtOrigin("01")
	w.wantSent(c[4], unavailableSent)
	w.wantRefused("queue_full", 1)
	w.wantQueued(2)
	w.data(last, okay)
	last = w.wantAtOrigin("2")
	w.wantSent(c[1], okaySent)
	w.data(c[4], named("5"))
	w.wantAtOrigin("")
	w.data(last, okay)
	last = w.wantAtOrigin("3")
	w.data(last, okay)
	last = w.wantAtOrigin("5")
	w.data(last, okay)
	w.wantSent(c[2], okaySent)
	w.wantSent(c[3], okaySent)
	w.wantSent(c[4], okaySent)
	w.wantQueued(0)
	if n := w.inside(); n != 1 {
		t.Errorf("%d in flight, want the first", n)
	}
}

func TestWithoutAQueue(t *testing.T) {
	w := newWorld(t, queued(1, 0))
	a, b := w.accept(), w.accept()
	w.data(a, named("a"))
	w.data(b, named("b"))
	at := w.wantAtOrigin("a")
	w.wantSent(b, unavailableSent)
	w.wantRefused("max_requests", 1)
	w.data(at, okay)
	w.data(b, named("b"))
	w.wantAtOrigin("b")
}

func TestWaitingEnds(t *testing.T) {
	w := newWorld(t, queued(1, 9))
	c := w.clients(6)
	for i, client := range c {
		w.data(client, named(fmt.Sprint(i)))
	}
	at := w.wantAtOrigin("0")
	w.eof(c[1], nil)
	w.eof(c[2], errReset)
	if !c[1].closed || !c[2].closed {
		t.Error("who has left still waits")
	}
	w.wantQueued(3)
	w.pass(time.Second-1, c...)
	w.wantSent(c[3], "")
	w.pass(1, c[3])
	w.wantSent(c[3], unavailableSent)
	w.wantRefused("queue_timeout", 1)
	w.engine.Abandon(&c[4].conn) // as after a panic
	w.wantQueued(1)
	w.data(at, okay)
	w.wantAtOrigin("5")

	// Let in, and gone before it was told.
	w.data(c[3], named("6"))
	w.data(at, okay)
	w.eof(c[3], errReset)
	w.wantAtOrigin("")
	if n := w.inside(); n != 0 || w.backends.State("origin:80").InFlight() != 0 {
		t.Errorf("%d in flight in the end", n)
	}
	if got := w.counts("dataplane_requests_total", "code"); got["499"] != 3 || got["503"] != 1 || got["500"] != 1 {
		t.Errorf("answers: %v", got)
	}
}

// What follows the head of a request that waits: its body, in pieces, and the next
// requests of the client.
func TestBodiesWait(t *testing.T) {
	w := newWorld(t, queued(1, 9))
	first, c := w.accept(), w.accept()
	w.data(first, named("first"))
	at := w.wantAtOrigin("first")
	w.data(c, "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab")
	w.data(c, "c")
	w.data(c, "de"+get)
	w.data(at, okay)
	w.runPosted()
	if got, want := at.take(), "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"+added+"abcde"; got != want {
		t.Errorf("the backend got %q, want %q", got, want)
	}
	w.data(at, okay)
	w.data(w.wantAtOrigin("x"), okay)
	w.wantSent(c, okaySent+okaySent)

	// A long body: the client has to wait as well, and goes on afterwards.
	w.data(first, named("first"))
	at = w.wantAtOrigin("first")
	w.data(c, fmt.Sprintf("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", 200<<10))
	sent := 0
	for ; !c.paused; sent += 1 << 10 {
		w.data(c, strings.Repeat("x", 1<<10))
	}
	if sent > 66<<10 {
		t.Errorf("%d bytes were taken while the request waited", sent)
	}
	w.data(at, okay)
	w.runPosted()
	for ; sent < 200<<10; sent += 1 << 10 {
		w.data(c, strings.Repeat("x", 1<<10))
	}
	if got := len(at.take()); got < 200<<10 {
		t.Errorf("the backend got %d bytes", got)
	}
	w.data(at, okay)
	w.wantSent(c, okaySent)

	// A body that is none.
	w.data(first, named("first"))
	w.data(c, "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
	w.data(c, "nonsense\r\n")
	if got := c.take(); !strings.HasPrefix(got, "HTTP/1.1 400 ") {
		t.Errorf("nonsense is answered %q", got)
	}
	w.wantQueued(0)
}

func TestRequestsWaitForBackends(t *testing.T) {
	e := queued(0, 9)
	e.Pool = []*routetablev1.Backend{{Url: "http://a:80", Weight: 1, MaxRequests: 1}, {Url: "http://b:80", Weight: 1, MaxRequests: 2}}
	other := anything() // that has the same backend
	other.Name, other.Path = "other", &routetablev1.Endpoint_Exact{Exact: "/other"}
	other.Pool = []*routetablev1.Backend{{Url: "http://b:80", Weight: 1}}
	w := newWorld(t, e, other)
	c := w.clients(6)
	for i, client := range c {
		w.data(client, named(fmt.Sprint(i)))
	}
	w.wantAtOrigin("012")
	w.wantQueued(3)
	for _, o := range w.dialled {
		if n := w.backends.State(o.addr).InFlight(); n > 2 || o.addr == "a:80" && n > 1 {
			t.Errorf("%d in flight to %s", n, o.addr)
		}
	}
	w.data(w.dialled[0], okay)
	at := w.wantAtOrigin("3")
	if at != w.dialled[0] {
		t.Errorf("waited for %s, went to %s", w.dialled[0].addr, at.addr)
	}
	// A request of the other endpoint takes no notice, and its end is one to wait for.
	more := w.accept()
	w.data(more, named("other"))
	w.wantAtOrigin("other")
	w.data(w.dialled[1], okay)
	w.wantAtOrigin("")
	w.data(w.dialled[2], okay)
	w.wantAtOrigin("4")
	w.eof(c[5], nil)
	w.wantQueued(0)

	e.Queue = nil
	w.apply(wire(e, other))
	w.data(c[0], named("7"))
	w.wantSent(c[0], okaySent+unavailableSent)
	w.wantRefused("backends_full", 1)
}

// A backend that comes back takes who waits for the others.
func TestRequestsWaitForBackendsThatAreNotThere(t *testing.T) {
	e := queued(0, 9)
	e.Pool = []*routetablev1.Backend{{Url: "http://a:80", Weight: 1, MaxRequests: 1}, {Url: "http://b:80", Weight: 1, MaxRequests: 1}}
	w := newWorld(t, e)
	p := w.live.Load().Endpoint("all").Pool
	b := p.Members()[1]
	b.Health.SetHealthy(false)
	p.Refresh()
	c := w.clients(3)
	for i, client := range c {
		w.data(client, named(fmt.Sprint(i)))
	}
	w.wantAtOrigin("0")
	b.Health.SetHealthy(true)
	p.Refresh()
	if at := w.wantAtOrigin("1"); at.addr != "b:80" {
		t.Errorf("went to %s", at.addr)
	}
	w.data(w.dialled[1], okay)
	w.wantAtOrigin("2")
}

// What a backend is asked for, and which, is the same for a request that has waited.
func TestRequestsThatHaveWaitedAreAimedTheSame(t *testing.T) {
	e := queued(1, 9)
	e.Rewrite = &routetablev1.Rewrite{To: &routetablev1.Rewrite_Regex{Regex: &routetablev1.Regex{Match: "^/", Replace: "/new-"}}}
	e.LoadBalancing = &routetablev1.LoadBalancing{
		Policy: routetablev1.Policy_POLICY_CONSISTENT_HASH, Key: &routetablev1.Key{Kind: routetablev1.KeyKind_KEY_KIND_PATH},
	}
	e.Pool = nil
	for i := range 20 {
		e.Pool = append(e.Pool, &routetablev1.Backend{Url: fmt.Sprintf("http://b%d:80", i), Weight: 1})
	}
	for _, limited := range []bool{false, true} {
		if limited {
			for _, b := range e.Pool {
				b.MaxRequests = 1
			}
		}
		w := newWorld(t, e)
		first, c := w.accept(), w.accept()
		w.data(first, named("a"))
		at := w.wantAtOrigin("new-a")
		w.data(c, named("a"))
		w.data(w.accept(), named("b"))
		w.data(at, okay)
		again := w.wantAtOrigin("new-a")
		if again.addr != at.addr {
			t.Errorf("at %s, the same request that has waited at %s", at.addr, again.addr)
		}
		w.data(again, okay)
		w.wantAtOrigin("new-b")
		w.wantSent(c, okaySent)
	}
}

func TestLimitsOutliveTables(t *testing.T) {
	w := newWorld(t, queued(1, 9))
	c := w.clients(8)
	for i, client := range c[:6] {
		w.data(client, named(fmt.Sprint(i)))
	}
	w.wantAtOrigin("0")
	w.apply(wire(queued(2, 1)))
	w.wantAtOrigin("1") // the limit was raised
	w.data(c[6], named("6"))
	w.wantSent(c[6], unavailableSent) // the line was shortened
	w.apply(wire(anything()))
	w.wantAtOrigin("2345")
	w.apply(wire(queued(1, 9)))
	w.data(c[6], named("6"))
	w.wantAtOrigin("") // those from before count
	w.wantQueued(1)

	// The endpoint goes away: who waits is routed anew.
	gone := anything()
	gone.Name, gone.Path = "else", &routetablev1.Endpoint_Exact{Exact: "/6"}
	w.apply(wire(gone))
	for _, o := range w.dialled {
		w.data(o, okay)
	}
	w.wantAtOrigin("6")
	if got := w.counts("dataplane_requests_in_flight", "endpoint"); got["else"] != 1 {
		t.Errorf("in flight: %v", got)
	}
}

// However requests end, what they have been given is given back.
func TestEverythingIsGivenBack(t *testing.T) {
	for seed := range uint64(300) {
		if t.Failed() {
			t.Fatalf("seed %d", seed-1)
		}
		everythingIsGivenBack(t, rand.New(rand.NewPCG(seed, 3)))
	}
}

func everythingIsGivenBack(t *testing.T, random *rand.Rand) {
	tables := []*routetablev1.RouteTable{}
	for most := range uint32(4) {
		e := queued(most, 1+random.Uint32N(4))
		e.Pool = append(e.Pool, &routetablev1.Backend{Url: "http://other:80", Weight: 2})
		e.Pool[random.IntN(2)].MaxRequests = 1 + random.Uint32N(3)
		if random.IntN(2) == 0 {
			e.Retry = retrying(1, nil).Retry
		}
		if random.IntN(2) == 0 {
			e.LoadBalancing = &routetablev1.LoadBalancing{
				Policy: routetablev1.Policy_POLICY_CONSISTENT_HASH, Key: &routetablev1.Key{Kind: routetablev1.KeyKind_KEY_KIND_COOKIE, Name: "c"},
			}
		}
		tables = append(tables, wire(e))
	}
	w := newWorldOf(t, tables[0])
	w.recycle = true
	var clients, origins []*end
	open := func(list []*end) *end {
		for range 10 {
			if len(list) == 0 {
				return nil
			}
			if e := list[random.IntN(len(list))]; !e.closed {
				return e
			}
		}
		return nil
	}
	requests := []string{
		get, get + get, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab", "cde", "GET / HTTP/1.0\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", "nonsense",
	}
	responses := []string{
		okay, okay, okay, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", "HTTP/1.1 200 OK\r\n\r\nok", "HTTP/1.1 100 Continue\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "nonsense", busy,
	}
	// The memory of one that is closed may be one's that is opened.
	ended := map[*end]bool{} // they send no more
	add := func(to, from *[]*end, e *end) {
		ended[e] = false
		was := func(o *end) bool { return o == e }
		*to, *from = append(slices.DeleteFunc(*to, was), e), slices.DeleteFunc(*from, was)
	}
	for range 150 {
		for _, o := range w.dialled {
			add(&origins, &clients, o)
		}
		w.dialled = w.dialled[:0]
		switch c, o := open(clients), open(origins); random.IntN(12) {
		case 0, 1:
			add(&clients, &origins, w.accept())
		case 2, 3, 4:
			if c != nil && !c.paused && !ended[c] {
				w.data(c, requests[random.IntN(len(requests))])
			}
		case 5:
			if o != nil && o.dialling {
				w.connect(o)
			}
		case 6, 7:
			if o != nil && !o.dialling && !o.paused && !ended[o] {
				w.data(o, responses[random.IntN(len(responses))])
			}
		case 8:
			e := c
			if random.IntN(2) == 0 {
				e = o
			}
			if e != nil && !e.dialling && !e.paused && !ended[e] {
				ended[e] = true
				w.eof(e, []error{nil, errReset}[random.IntN(2)])
			}
		case 9:
			if o != nil && o.dialling && random.IntN(3) == 0 {
				o.closed = true
				w.tick()
				w.engine.DialFailed(&o.conn, random.IntN(2) == 0)
				w.settle()
			} else if c != nil && random.IntN(5) == 0 {
				w.tick()
				w.engine.Abandon(&c.conn)
				w.settle()
			}
		case 10:
			w.pass(time.Duration(random.IntN(int(time.Second))), append(clients, origins...)...)
			if random.IntN(4) == 0 {
				w.apply(tables[random.IntN(len(tables))])
			}
		case 11:
			w.runPosted()
		}
	}
	for _, c := range clients {
		if !c.closed {
			w.tick()
			w.engine.Abandon(&c.conn)
			w.settle()
		}
	}
	w.runPosted()
	if n := w.inside(); n != 0 {
		t.Errorf("%d in flight of the endpoint in the end", n)
	}
	for _, addr := range []string{"origin:80", "other:80"} {
		if n := w.backends.State(addr).InFlight(); n != 0 {
			t.Errorf("%d in flight to %s in the end", n, addr)
		}
	}
	w.wantQueued(0)
	if got := w.counts("dataplane_requests_in_flight", "endpoint"); len(got) != 0 {
		t.Errorf("in flight by the metrics: %v", got)
	}
	if routetable.Validate(tables[0]) != nil {
		t.Fatal("the table is not valid")
	}
}
