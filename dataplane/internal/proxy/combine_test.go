package proxy_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// swap has a table come into force that State.Retain has not been told of yet, as it
// is for a moment after each change.
func (w *world) swap(rt *routetablev1.RouteTable) (retain func()) {
	w.Helper()
	built := w.build(rt)
	w.live.Store(built)
	return func() { w.state.Retain(built) }
}

// Between a table's coming into force and the end of the limits of the one before it,
// a member may look full that has no limit any more.
func TestLimitThatIsTakenAway(t *testing.T) {
	limited := queued(0, 0)
	limited.Pool[0].MaxRequests = 1
	w := newWorld(t, limited)
	w.data(w.accept(), named("a"))
	w.wantAtOrigin("a")
	retain := w.swap(wire(queued(0, 0)))
	w.data(w.accept(), named("b"))
	w.wantAtOrigin("b")
	retain()
	w.data(w.accept(), named("c"))
	w.wantAtOrigin("c")
}

// A request that is sent to the same backend again has its place there already.
func TestRetryAtAFullBackend(t *testing.T) {
	e := retrying(1, nil)
	e.Pool[0].MaxRequests = 2
	w := newWorld(t, e)
	w.data(w.accept(), named("other"))
	w.wantAtOrigin("other")
	c := w.accept()
	w.data(c, named("a"))
	w.eof(w.wantAtOrigin("a"), errReset)
	if n := w.backends.State("b0:80").InFlight(); n != 2 {
		t.Errorf("%d in flight while it is to be sent again", n)
	}
	w.pass(25*time.Millisecond, c)
	w.data(w.wantAtOrigin("a"), okay)
	w.wantSent(c, okaySent)
	if n := w.backends.State("b0:80").InFlight(); n != 1 {
		t.Errorf("%d in flight in the end", n)
	}
}

// Who waits for the backends of a pool does not wait on when there is another one.
func TestPoolGrowsWhileRequestsWait(t *testing.T) {
	e := queued(0, 9)
	e.Pool[0].MaxRequests = 1
	w := newWorld(t, e)
	c := w.clients(4)
	for i, client := range c {
		w.data(client, named(string(rune('0'+i))))
	}
	w.wantAtOrigin("0")
	e.Pool = append(e.Pool, &routetablev1.Backend{Url: "http://new:80", Weight: 1, MaxRequests: 2})
	w.apply(wire(e))
	w.wantAtOrigin("12")
	w.wantQueued(1)
	w.data(w.dialled[0], okay)
	w.wantAtOrigin("3")
}

// Nor does who waits at an endpoint that goes away, for room there or for a backend.
func TestEndpointGoesAwayWhileRequestsWait(t *testing.T) {
	for _, most := range []uint32{0, 1} {
		e := queued(most, 9)
		e.Pool[0].MaxRequests = 1
		w := newWorld(t, e)
		w.data(w.accept(), named("0"))
		w.wantAtOrigin("0")
		w.data(w.accept(), named("1"))
		w.wantAtOrigin("")
		other := anything()
		other.Name, other.Pool[0].Url = "other", "http://new:80"
		w.apply(wire(other))
		if at := w.wantAtOrigin("1"); at == nil || at.addr != "new:80" {
			t.Errorf("with %d: it still waits", most)
		}
	}
}

// What an endpoint has said about a request does not hold when another one takes it.
func TestRoutedAgainAfterWaiting(t *testing.T) {
	e := queued(1, 9)
	e.Queue.Timeout = durationpb.New(time.Minute)
	e.Timeouts.Request = durationpb.New(20 * time.Second)
	e.ResponseHeaders = &routetablev1.HeaderEdits{Set: []*routetablev1.Header{field("X-Inside", "1")}}
	w := newWorld(t, e)
	c := w.clients(3)
	w.data(c[0], named("0"))
	at := w.wantAtOrigin("0")
	w.data(c[1], named("1"))
	w.data(c[2], named("2"))
	other := anything()
	other.Name, other.Path = "other", &routetablev1.Endpoint_Exact{Exact: "/1"}
	w.apply(wire(other))
	w.data(at, okay)
	at = w.wantAtOrigin("1")
	w.pass(21*time.Second, c[1])
	w.data(at, okay)
	w.wantSent(c[1], okaySent)
	w.runPosted()
	if got := c[2].take(); !strings.HasPrefix(got, "HTTP/1.1 404 ") || strings.Contains(got, "X-Inside") {
		t.Errorf("answered %q", got)
	}
	if routetable.Validate(wire(e)) != nil {
		t.Error("the table is not valid")
	}
}

// However often the table changes, a request waits in line for no longer than it may.
func TestRequestsInLineAgainDoNotWaitAnew(t *testing.T) {
	e := queued(0, 9) // for a second
	e.Pool[0].MaxRequests = 1
	w := newWorld(t, e)
	w.data(w.accept(), named("0"))
	w.wantAtOrigin("0")
	c := w.accept()
	w.data(c, named("1"))
	for i := range uint32(3) {
		w.pass(300*time.Millisecond, c)
		e.Pool[0].Weight = 2 + i
		w.apply(wire(e))
		w.wantAtOrigin("")
		w.wantQueued(1)
	}
	w.pass(100*time.Millisecond-1, c)
	w.wantQueued(1)
	w.pass(1, c)
	w.wantQueued(0)
	w.wantSent(c, unavailableSent)
	w.wantRefused("queue_timeout", 1)
	// The next request of the connection has a time of its own.
	w.data(c, named("2"))
	w.pass(time.Second-1, c)
	w.wantQueued(1)
}

// A field in the place of which the endpoint puts another, or none, does not pass in
// the spelling that backends read as the same.
func TestEditedNamesWithUnderscores(t *testing.T) {
	w := newWorldOf(t, valid(t, wire(edited(&routetablev1.HeaderEdits{
		Set: []*routetablev1.Header{field("X-User-Name", "nobody")}, Remove: []string{"x-role", "x_admin"},
	}, nil))))
	w.data(w.accept(), "GET / HTTP/1.1\r\nHost: a\r\nX_User-Name: evil\r\nx-user_name: evil\r\nX-Admin: evil\r\nX_Role: evil\r\n\r\n")
	w.connect(w.dialled[0])
	if got := w.dialled[0].take(); strings.Contains(got, "evil") {
		t.Errorf("sent\n%s", got)
	}
}
