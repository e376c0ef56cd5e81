package metrics_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"reverseproxy/dataplane/internal/backend"
	"reverseproxy/dataplane/internal/metrics"
)

// all is room for everything that a test reports.
var all = metrics.Room{Rows: 1 << 20, Bytes: 1 << 20}

// reporting is a reporter whose clock the test moves by seconds.
type reporting struct {
	*metrics.Reporter
	now time.Time
}

func newReporting(s *metrics.Set) *reporting {
	now := time.Now()
	return &reporting{s.NewReporter(now), now}
}

// want fails unless these are the reports after some seconds, in any order.
func (r *reporting) want(t *testing.T, after int, want ...metrics.Report) {
	t.Helper()
	r.now = r.now.Add(time.Duration(after) * time.Second)
	got, _ := r.Next(r.now, all)
	slices.SortFunc(got, func(a, b metrics.Report) int {
		return strings.Compare(a.Endpoint+a.Backend, b.Endpoint+b.Backend)
	})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("reports (-want +got):\n%s", diff)
	}
}

func TestReports(t *testing.T) {
	s := metrics.NewSet(2)
	e := s.Endpoint("e")
	a, b := e.Backend("http://a"), e.Backend("http://b")
	state := backend.NewRegistry().State("a:80")
	a.Track([]*backend.Member{backend.NewMember(state)})
	a.Begin(0)
	a.Response(0, 200, time.Millisecond)
	a.End(0)
	a.Begin(1)

	r := newReporting(s)
	quietB := metrics.Report{Endpoint: "e", Backend: "http://b"}
	r.want(t, 0, metrics.Report{Endpoint: "e", Backend: "http://a", Requests: 2, InFlight: 1}, quietB)
	r.want(t, 5)

	// One ends, one is answered 503, one fails altogether, one begins.
	a.End(1)
	a.Begin(1)
	a.Response(1, 503, time.Millisecond)
	a.End(1)
	a.Begin(0)
	a.Error(0, metrics.Reset)
	a.End(0)
	a.Begin(0)
	moved := metrics.Report{
		Endpoint: "e", Backend: "http://a", Requests: 5, Failures: 2, InFlight: 1, RequestRate: 1.5, FailureRate: 1,
	}
	r.want(t, 2, moved)
	// When they stop that is news, once.
	moved.RequestRate, moved.FailureRate = 0, 0
	r.want(t, 5, moved)
	r.want(t, 5)

	state.SetUp(false)
	moved.Trouble = "the last attempt to connect failed"
	r.want(t, 5, moved)
	r.want(t, 5)
	b.Begin(0)
	r.want(t, 1, metrics.Report{Endpoint: "e", Backend: "http://b", Requests: 1, InFlight: 1, RequestRate: 1})

	// Another reader is told everything.
	r = newReporting(s)
	r.want(t, 0, moved, metrics.Report{Endpoint: "e", Backend: "http://b", Requests: 1, InFlight: 1})

	// What has been forgotten and has come back is new.
	s.Forget("e")
	r.want(t, 1)
	s.Endpoint("e").Backend("http://b")
	r.want(t, 1, quietB)
}

func TestReportsOnEndpoints(t *testing.T) {
	s := metrics.NewSet(2)
	e := s.Endpoint("e")
	end := func(e *metrics.Endpoint, shard, code int) {
		e.Begin(shard)
		e.End(shard, &metrics.Request{Method: "GET", Code: code})
	}
	end(e, 0, 200)
	r := newReporting(s)
	want := func(after int, want ...metrics.EndpointReport) {
		t.Helper()
		r.now = r.now.Add(time.Duration(after) * time.Second)
		_, got := r.Next(r.now, all)
		slices.SortFunc(got, func(a, b metrics.EndpointReport) int { return strings.Compare(a.Endpoint, b.Endpoint) })
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("reports (-want +got):\n%s", diff)
		}
	}
	want(0, metrics.EndpointReport{Endpoint: "e", Requests: 1}, metrics.EndpointReport{Endpoint: "none"})
	want(5)
	// One in flight is not answered yet; nor is a backend needed.
	e.Begin(1)
	end(e, 1, 500)
	end(e, 0, 499)
	end(s.None(), 0, 404)
	want(2,
		metrics.EndpointReport{Endpoint: "e", Requests: 3, Failures: 1, New: 2, RequestRate: 1, FailureRate: 0.5},
		metrics.EndpointReport{Endpoint: "none", Requests: 1, New: 1, RequestRate: 0.5},
	)
	// When they stop that is news, once.
	want(5, metrics.EndpointReport{Endpoint: "e", Requests: 3, Failures: 1}, metrics.EndpointReport{Endpoint: "none", Requests: 1})
	want(5)
	e.End(1, &metrics.Request{Method: "GET", Code: 200})
	want(2, metrics.EndpointReport{Endpoint: "e", Requests: 4, Failures: 1, New: 1, RequestRate: 0.5})
	want(1, metrics.EndpointReport{Endpoint: "e", Requests: 4, Failures: 1})
	want(1)
	// What has been forgotten and has come back is new.
	s.Forget("e")
	want(1)
	want(1)
	end(s.Endpoint("e"), 0, 503)
	want(2, metrics.EndpointReport{Endpoint: "e", Requests: 1, Failures: 1, New: 1, RequestRate: 0.5, FailureRate: 0.5})
	want(1, metrics.EndpointReport{Endpoint: "e", Requests: 1, Failures: 1})
	want(1)
	// To another reader it is nothing new.
	r = newReporting(s)
	want(5, metrics.EndpointReport{Endpoint: "e", Requests: 1, Failures: 1}, metrics.EndpointReport{Endpoint: "none", Requests: 1})
}

// What does not fit is told later, and nothing is told twice for that.
func TestReportsInParts(t *testing.T) {
	const endpoints = 100
	s := metrics.NewSet(1)
	for i := range endpoints {
		s.Endpoint(fmt.Sprint("e", i)).Backend("http://a").Begin(0)
	}
	for _, test := range []struct {
		name string
		room metrics.Room
	}{{"by rows", metrics.Room{Rows: 7, Bytes: 1 << 20}}, {"by size", metrics.Room{Rows: 1 << 20, Bytes: 50}}} {
		t.Run(test.name, func(t *testing.T) {
			r := newReporting(s)
			seen, asAWhole := map[string]int{}, map[string]int{}
			parts := 0
			for {
				part, whole := r.Next(r.now, test.room)
				if len(part) == 0 && len(whole) == 0 {
					break
				}
				parts++
				if len(part) > 7 || len(whole) > 25 {
					t.Fatalf("a part of %d backends and %d endpoints", len(part), len(whole))
				}
				for _, report := range whole {
					asAWhole[report.Endpoint]++
				}
				for _, report := range part {
					seen[report.Endpoint]++
				}
			}
			if len(seen) != endpoints || parts < endpoints/7 {
				t.Errorf("%d endpoints in %d parts", len(seen), parts)
			}
			if len(asAWhole) != endpoints+1 {
				t.Errorf("%d endpoints as a whole, and those that none took", len(asAWhole))
			}
			for name, n := range asAWhole {
				if n != 1 || name != "none" && seen[name] != 1 {
					t.Errorf("%s was told %d times, its backend %d times", name, n, seen[name])
				}
			}
		})
	}
}

// What is in flight counts by URL, wherever it was begun and whatever has become of
// its endpoint, until it ends.
func TestInFlightOutlivesTheTable(t *testing.T) {
	s := metrics.NewSet(2)
	url := "http://a/x"
	one, two := s.Endpoint("one").Backend(url), s.Endpoint("two").Backend(url)
	other := s.Endpoint("two").Backend("http://a/y")
	want := func(x, y uint64) {
		t.Helper()
		if diff := cmp.Diff([]uint64{y, x, 0}, s.InFlight([]string{"http://a/y", url, "http://none"})); diff != "" {
			t.Errorf("in flight (-want +got):\n%s", diff)
		}
	}
	want(0, 0)
	one.Begin(0)
	two.Begin(1)
	two.Begin(0)
	other.Begin(0)
	want(3, 1)
	s.Forget("one")
	want(3, 1)
	s.Endpoint("two").Retain(func(string) bool { return false })
	want(3, 1)
	s.Endpoint("one").Backend(url).Begin(0) // it has come back
	want(4, 1)
	one.End(0)
	two.End(0)
	other.End(0)
	want(2, 0)
	two.End(1)
	s.Forget("two") // lets go of those that have ended
	want(1, 0)
	s.Endpoint("one").Backend(url).End(0)
	want(0, 0)
	if n := len(s.InFlight(nil)); n != 0 {
		t.Errorf("%d answers to no question", n)
	}
}

// Of very many endpoints those are looked at that have had requests, and some of the
// others each time.
func TestReportsOfManyEndpoints(t *testing.T) {
	const endpoints = 12_000
	s := metrics.NewSet(1)
	state := backend.NewRegistry().State("a:80")
	for i := range endpoints {
		s.Endpoint(fmt.Sprint("e", i)).Backend("http://a").Track([]*backend.Member{backend.NewMember(state)})
	}
	r := newReporting(s)
	r.Next(r.now, all)
	r.want(t, 5)

	// The last ones of a request count although nothing begins.
	e := s.Endpoint("e7")
	e.Begin(0)
	e.Backend("http://a").Begin(0)
	seen := metrics.Report{Endpoint: "e7", Backend: "http://a", Requests: 1, InFlight: 1, RequestRate: 0.2}
	r.want(t, 5, seen)
	e.Backend("http://a").End(0)
	e.End(0, &metrics.Request{Method: "GET", Code: 200})
	seen.InFlight, seen.RequestRate = 0, 0
	r.want(t, 5, seen)
	r.want(t, 5, seen) // it has stopped
	r.want(t, 5)

	state.SetUp(false)
	told := map[string]bool{}
	for looks := 0; len(told) < endpoints; looks++ {
		if looks > 1000 {
			t.Fatalf("only %d endpoints were looked at", len(told))
		}
		reports, _ := r.Next(r.now, all)
		for _, report := range reports {
			told[report.Endpoint] = true
		}
	}
}

// BenchmarkReport is what a heartbeat costs beside 100,000 endpoints in use, of
// which few have had requests since the one before.
func BenchmarkReport(b *testing.B) {
	const endpoints, busy = 100_000, 1000
	s := metrics.NewSet(2)
	urls := []string{"http://10.0.0.1", "http://10.0.0.2", "http://10.0.0.3"}
	request := func(i int) {
		e := s.Endpoint(fmt.Sprint("endpoint-", i))
		e.Begin(i % 2)
		for _, url := range urls {
			e.Backend(url).Begin(i % 2)
			e.Backend(url).End(i % 2)
		}
		e.End(i%2, &metrics.Request{Method: "GET", Code: 200})
	}
	for i := range endpoints {
		request(i)
	}
	r := newReporting(s)
	for {
		if news, _ := r.Next(r.now, metrics.Room{Rows: 1 << 20, Bytes: 1 << 30}); len(news) == 0 {
			break
		}
	}
	for b.Loop() {
		for i := range busy {
			request(i)
		}
		r.now = r.now.Add(5 * time.Second)
		if backends, endpoints := r.Next(r.now, all); len(backends) != busy*len(urls) || len(endpoints) != busy {
			b.Fatalf("%d reports about backends, %d about endpoints", len(backends), len(endpoints))
		}
	}
}
