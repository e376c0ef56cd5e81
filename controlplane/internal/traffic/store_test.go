package traffic

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
	"unique"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/proto"

	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// world is a store whose clock the test moves.
type world struct {
	*Store
	now time.Time
}

func newWorld() *world {
	w := &world{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	w.Store = New(func() time.Time { return w.now })
	return w
}

// later moves the clock by seconds.
func (w *world) later(seconds float64) {
	w.now = w.now.Add(time.Duration(seconds * float64(time.Second)))
}

// hear gives a session's heartbeat to the store.
func (w *world) hear(x *Session, version string, t *routetablev1.Traffic, endpoints ...*routetablev1.EndpointReport) {
	x.Observe(&routetablev1.Heartbeat{State: &routetablev1.State{Version: version}, Traffic: t, Endpoints: endpoints}, w.now)
}

// answered is totals without a failure, all in one bucket.
func answered(n uint64) *routetablev1.Traffic {
	t := &routetablev1.Traffic{Requests: n, Durations: make([]uint64, Buckets)}
	t.Durations[3] = n
	return t
}

func (w *world) counters(t *testing.T, id string) Counters {
	t.Helper()
	c, ok := w.Counters(id)
	if !ok {
		t.Fatalf("no counters of %s", id)
	}
	return c
}

func TestCountersSinceAMoment(t *testing.T) {
	w := newWorld()
	if _, ok := w.Counters("a"); ok {
		t.Error("there are counters of a data plane that nobody knows")
	}
	x := w.Session("a")
	w.hear(x, "v1", nil)
	if _, ok := w.Counters("a"); ok {
		t.Error("there are counters of a data plane that has told none")
	}
	w.hear(x, "v1", answered(100))
	before := w.counters(t, "a")
	w.later(5)
	more := answered(130)
	more.ServerErrors, more.GatewayErrors = 7, 3
	w.hear(x, "v2", more)
	after := w.counters(t, "a")
	want := Counters{Process: before.Process, Version: "v2", At: w.now, Requests: 30, ServerErrors: 7, GatewayErrors: 3}
	want.Durations[3] = 30
	if diff := cmp.Diff(want, after.Sub(before)); diff != "" {
		t.Errorf("since (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(after, after.Sub(Counters{})); diff != "" {
		t.Errorf("since the start (-want +got):\n%s", diff)
	}

	// The same process on another stream goes on; one that has started again begins
	// at zero.
	x.Close()
	x = w.Session("a")
	w.hear(x, "v2", answered(10_000))
	if got := w.counters(t, "a").Sub(after); got.Requests != 10_000 {
		t.Errorf("fewer server errors than before: %d requests since, want all 10000", got.Requests)
	}
	before = w.counters(t, "a")
	x.Close()
	x = w.Session("a")
	w.hear(x, "v2", answered(10_010))
	if got := w.counters(t, "a").Sub(before); got.Requests != 10 {
		t.Errorf("another stream of one process: %d requests since, want 10", got.Requests)
	}
}

// Of two data planes with one id that of the newest stream counts, so that the totals
// do not go back and forth.
func TestCountersOfTwoDataPlanesWithOneID(t *testing.T) {
	w := newWorld()
	old, young := w.Session("a"), w.Session("a")
	w.hear(young, "v1", answered(5))
	first := w.counters(t, "a")
	w.hear(old, "v1", answered(1000))
	w.hear(young, "v1", answered(6))
	if got := w.counters(t, "a").Sub(first); got.Requests != 1 || got.Process != first.Process {
		t.Errorf("since: %+v, want 1 request of process %d", got, first.Process)
	}
	young.Close()
	w.Sweep()
	w.hear(old, "v1", answered(1000))
	if got := w.counters(t, "a"); got.Requests != 1000 {
		t.Errorf("after the newer one has left: %d requests, want 1000", got.Requests)
	}
}

func TestDataPlanesAreForgotten(t *testing.T) {
	w := newWorld()
	x, stays := w.Session("a"), w.Session("b")
	w.hear(x, "v1", answered(5))
	w.hear(stays, "v1", answered(5))
	x.Close()
	w.later(60)
	w.Sweep()
	w.counters(t, "a")
	w.later(forgetAfter.Seconds())
	w.Sweep()
	if _, ok := w.Counters("a"); ok {
		t.Error("the counters of one that has left are kept for ever")
	}
	w.counters(t, "b")
}

// TestP99 compares it with the durations themselves: it is in the bucket of the right
// one.
func TestP99(t *testing.T) {
	for range 1000 {
		n := 1 + rand.IntN(1000)
		durations := make([]time.Duration, n)
		var c Counters
		for i := range durations {
			durations[i] = time.Duration(rand.ExpFloat64() * float64(time.Second) * rand.Float64())
			bucket, _ := slices.BinarySearch(routetable.DurationBounds[:], durations[i])
			c.Durations[bucket]++
		}
		slices.Sort(durations)
		exact := durations[(99*n+99)/100-1]
		bucket, _ := slices.BinarySearch(routetable.DurationBounds[:], exact)
		var from time.Duration
		if bucket > 0 {
			from = routetable.DurationBounds[bucket-1]
		}
		to := routetable.DurationBounds[min(bucket, Buckets-2)]
		if got := c.P99(); got < from || got > to {
			t.Fatalf("%s, but the one of %d is %s", got, n, exact)
		}
	}
	if got := (Counters{}).P99(); got != 0 {
		t.Errorf("%s of no requests", got)
	}
}

func rate(endpoint string, fresh uint64, requests, failures float64) *routetablev1.EndpointReport {
	return &routetablev1.EndpointReport{Endpoint: endpoint, NewRequests: fresh, RequestsPerSecond: requests, FailuresPerSecond: failures}
}

// wantRates fails unless the endpoints have these rates.
func (w *world) wantRates(t *testing.T, want ...EndpointRate) {
	t.Helper()
	got := w.Rates().Endpoints
	if diff := cmp.Diff(want, got, cmpopts.EquateApprox(1e-6, 1e-6)); diff != "" {
		t.Errorf("rates (-want +got):\n%s", diff)
	}
}

func TestRatesOverTheFleet(t *testing.T) {
	w := newWorld()
	a, b := w.Session("a"), w.Session("b")
	w.hear(a, "v1", answered(1000), rate("home", 0, 0, 0), rate("idle", 0, 0, 0))
	w.hear(b, "v1", answered(0))
	w.later(5)
	w.hear(a, "v1", answered(1050), rate("home", 50, 10, 1))
	w.hear(b, "v1", answered(150), rate("home", 100, 20, 0), rate("none", 50, 10, 0))
	w.Sweep()
	w.wantRates(t,
		EndpointRate{Endpoint: "home", Requests: 30, Failures: 1, DataPlanes: 2, Recent: 150},
		EndpointRate{Endpoint: "none", Requests: 10, DataPlanes: 1, Recent: 50},
	)
	if all := w.Rates(); all.RequestsPerSecond != 40 || all.DataPlanes != 2 || all.Incomplete {
		t.Errorf("all: %+v", all)
	}

	// What is not told anew goes on; what has stopped is remembered for five minutes.
	w.later(5)
	w.hear(a, "v1", answered(1050), rate("home", 0, 0, 0))
	w.hear(b, "v1", answered(300))
	w.Sweep()
	w.wantRates(t,
		EndpointRate{Endpoint: "home", Requests: 20, DataPlanes: 1, Recent: 150},
		EndpointRate{Endpoint: "none", Requests: 10, DataPlanes: 1, Recent: 50},
	)
	// A data plane that has left, or is silent, has no rate.
	b.Close()
	w.wantRates(t, EndpointRate{Endpoint: "home", Recent: 150}, EndpointRate{Endpoint: "none", Recent: 50})
	w.Sweep()
	w.wantRates(t, EndpointRate{Endpoint: "home", Recent: 150}, EndpointRate{Endpoint: "none", Recent: 50})
	w.later(5)
	w.hear(a, "v1", answered(1100), rate("home", 50, 10, 0))
	w.Sweep()
	w.later(60)
	w.wantRates(t, EndpointRate{Endpoint: "home", Recent: 200}, EndpointRate{Endpoint: "none", Recent: 50})
	w.later(200)
	w.wantRates(t, EndpointRate{Endpoint: "home", Recent: 200}, EndpointRate{Endpoint: "none", Recent: 50})
	w.later(200)
	w.wantRates(t)
}

// A single request every now and then is counted once, however often the sweeps and
// heartbeats come.
func TestRareRequestsAreCountedOnce(t *testing.T) {
	w := newWorld()
	x := w.Session("a")
	w.hear(x, "v1", answered(0))
	for i := range uint64(3) {
		w.later(5)
		w.hear(x, "v1", answered(i+1), rate("rare", 1, 0.2, 0))
		if i > 0 {
			w.Sweep()
			w.Sweep()
		}
		w.later(5)
		w.hear(x, "v1", answered(i+1), rate("rare", 0, 0, 0))
		w.Sweep()
		w.later(30)
		w.hear(x, "v1", answered(i+1))
	}
	w.wantRates(t, EndpointRate{Endpoint: "rare", Recent: 3})
}

func TestNonsenseIsLeftOut(t *testing.T) {
	w := newWorld()
	x := w.Session("a")
	w.hear(x, "v1", &routetablev1.Traffic{Requests: math.MaxUint64, Durations: make([]uint64, 1000)})
	w.later(5)
	w.hear(x, "v1", &routetablev1.Traffic{},
		rate("nan", 1, math.NaN(), 0), rate("inf", 1, math.Inf(1), 0), rate("less", 1, -5, 0),
		rate("", 1, 1, 0), rate("a\x1b[2J", 1, 1, 0), rate(strings.Repeat("x", routetable.MaxNameBytes+1), 1, 1, 0),
		rate("good", 1, 1, math.NaN()), nil,
	)
	w.wantRates(t, EndpointRate{Endpoint: "good", Requests: 1, DataPlanes: 1, Recent: 1})

	good := func() *routetablev1.Sample {
		return &routetablev1.Sample{Method: "GET", Host: "h", Path: "/x", Endpoint: "e", Weight: 1}
	}
	list := []*routetablev1.Sample{good(), nil}
	for _, spoil := range []func(*routetablev1.Sample){
		func(s *routetablev1.Sample) { s.Method = "" },
		func(s *routetablev1.Sample) { s.Method = "G\n" },
		func(s *routetablev1.Sample) { s.Host = "h\x07" },
		func(s *routetablev1.Sample) { s.Host = strings.Repeat("h", 300) },
		func(s *routetablev1.Sample) { s.Path = "" },
		func(s *routetablev1.Sample) { s.Path = "/a/../b" },
		func(s *routetablev1.Sample) { s.Path = "/a?secret" },
		func(s *routetablev1.Sample) { s.Path = "/" + strings.Repeat("x", routetable.MaxSamplePath) },
		func(s *routetablev1.Sample) { s.Endpoint = strings.Repeat("x", 300) },
		func(s *routetablev1.Sample) { s.Weight = 0 },
		func(s *routetablev1.Sample) { s.Weight = -1 },
		func(s *routetablev1.Sample) { s.Weight = math.NaN() },
		func(s *routetablev1.Sample) { s.Weight = math.Inf(1) },
	} {
		bad := good()
		spoil(bad)
		list = append(list, bad)
	}
	x.Observe(&routetablev1.Heartbeat{Traffic: answered(1), Samples: list}, w.now)
	want := []Sample{{Method: "GET", Host: "h", Path: "/x", Endpoint: "e", Weight: 1, At: w.now}}
	if diff := cmp.Diff(want, w.Samples().List); diff != "" {
		t.Errorf("samples (-want +got):\n%s", diff)
	}
}

// Everything has a bound, and what is given up makes room.
func TestRoomIsBounded(t *testing.T) {
	w := newWorld()
	w.room.Store(3)
	a, b := w.Session("a"), w.Session("b")
	for _, x := range []*Session{a, b} {
		w.hear(x, "v1", answered(1), rate("one", 1, 1, 0), rate("two", 1, 1, 0))
	}
	if all := w.Rates(); !all.Incomplete || all.Endpoints[0].DataPlanes+all.Endpoints[1].DataPlanes != 3 {
		t.Errorf("with room for three: %+v", all)
	}
	a.Close()
	w.Sweep()
	w.hear(b, "v1", answered(1), rate("one", 1, 1, 0), rate("two", 1, 1, 0))
	if all := w.Rates(); all.Incomplete || len(all.Endpoints) != 2 {
		t.Errorf("with room again: %+v", all)
	}
	b.Close()
	w.Sweep()
	if left := w.room.Load(); left != 3 {
		t.Errorf("room for %d after all have left, want 3", left)
	}

	many := map[name]*sum{}
	for i := range maxNames + 10 {
		many[unique.Make(fmt.Sprint(i))] = &sum{requests: 1, counted: 1, planes: 1}
	}
	w.past.add(many, w.now)
	if n := len(w.past.recent); n > maxNames {
		t.Errorf("%d endpoints are remembered", n)
	}
	maps.DeleteFunc(many, func(name, *sum) bool { return len(many) > busiest+1 })
	for range 2 * points {
		w.later(pointTime.Seconds())
		w.past.add(many, w.now)
	}
	if n := len(w.past.points); n != points || len(w.past.points[0].each) != busiest {
		t.Errorf("%d points of %d endpoints", n, len(w.past.points[0].each))
	}
}

func TestSeries(t *testing.T) {
	w := newWorld()
	x := w.Session("a")
	w.hear(x, "v1", answered(0))
	began := w.now
	for i := range uint64(3) {
		w.later(5)
		w.hear(x, "v1", answered(0), rate("home", 5*i, float64(i), 0), rate("shop", 50, 10, 2))
		w.Sweep()
		w.Sweep() // makes no other point
	}
	seconds := func(n int) time.Time { return began.Add(time.Duration(n) * time.Second) }
	want := Series{
		Times: []time.Time{seconds(5), seconds(10), seconds(15)},
		All:   []Rate{{10, 2}, {11, 2}, {12, 2}},
		Endpoints: []EndpointSeries{
			{"shop", []Rate{{10, 2}, {10, 2}, {10, 2}}}, {"home", []Rate{{}, {1, 0}, {2, 0}}},
		},
	}
	if diff := cmp.Diff(want, w.Series()); diff != "" {
		t.Errorf("series (-want +got):\n%s", diff)
	}
}

// FuzzObserve: whatever a data plane says, everything stays bounded and a number.
func FuzzObserve(f *testing.F) {
	seed, err := proto.Marshal(&routetablev1.Heartbeat{
		Traffic: answered(10), Endpoints: []*routetablev1.EndpointReport{rate("e", 1, 2, 3)},
		Samples: []*routetablev1.Sample{{Method: "GET", Path: "/", Weight: 2}},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed, seed)
	f.Fuzz(func(t *testing.T, first, second []byte) {
		w := newWorld()
		x := w.Session("a")
		for _, data := range [][]byte{first, second} {
			h := &routetablev1.Heartbeat{}
			if proto.Unmarshal(data, h) != nil {
				return
			}
			w.later(5)
			x.Observe(h, w.now)
			w.Sweep()
		}
		for _, e := range w.Rates().Endpoints {
			if !(e.Requests >= 0 && e.Failures >= 0 && e.Recent >= 0) || !proper(e.Endpoint, routetable.MaxNameBytes) {
				t.Errorf("rate %+v", e)
			}
		}
		for _, s := range w.Samples().List {
			if !(s.Weight > 0 && s.Weight <= math.MaxFloat64) || !proper(s.Path, routetable.MaxSamplePath) {
				t.Errorf("sample %+v", s)
			}
		}
		if c, ok := w.Counters("a"); ok {
			c.P99()
		}
	})
}

func TestOnlySoManyThatHaveLeftAreKept(t *testing.T) {
	w := newWorld()
	const more = 1000
	stays := w.Session("stays")
	w.hear(stays, "v", answered(1))
	for i := range maxLeft + more {
		x := w.Session(fmt.Sprint("left ", i))
		w.hear(x, "v", answered(1))
		x.Close()
	}
	w.Sweep()
	w.counters(t, "stays")
	kept := 0
	for i := range maxLeft + more {
		if _, ok := w.Counters(fmt.Sprint("left ", i)); ok {
			kept++
		}
	}
	if kept != maxLeft {
		t.Errorf("%d are kept, want %d", kept, maxLeft)
	}
}
