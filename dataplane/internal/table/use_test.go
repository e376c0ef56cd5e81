package table_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"reverseproxy/dataplane/internal/table"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// many returns a table that is too large to come into use as a whole: the
// endpoints given, and others called /0000 and so on.
func many(endpoints ...*routetablev1.Endpoint) *routetablev1.RouteTable {
	for i := range 1001 {
		path := fmt.Sprintf("/%04d", i)
		endpoints = append(endpoints, withPool(endpoint(path, path), "http://10.0.0.1/"+path))
	}
	return wireTable(endpoints...)
}

// match returns the endpoint that takes GET path.
func match(tab *table.Table, path string) *table.Endpoint {
	return tab.Match(&table.Query{Method: []byte("GET"), Path: []byte(path)}).Endpoint
}

// inForce puts a table in force, as the activator does.
func inForce(t *testing.T, rt *routetablev1.RouteTable, prev *table.Table, s *table.State) *table.Table {
	t.Helper()
	tab := compile(t, rt, s)
	tab.Warm(prev)
	s.Retain(tab)
	return tab
}

// wantExposed checks how many endpoints and backends the metrics show.
func wantExposed(t *testing.T, s *table.State, endpoints, backends int) {
	t.Helper()
	e := testutil.CollectAndCount(s.Metrics, "dataplane_requests_in_flight") - 1 // one is "none"
	b := testutil.CollectAndCount(s.Metrics, "dataplane_backend_up")
	if e != endpoints || b != backends {
		t.Errorf("%d endpoints and %d backends are exposed, want %d and %d", e, b, endpoints, backends)
	}
}

func TestEndpointsComeIntoUse(t *testing.T) {
	s := newState()
	small := inForce(t, wireTable(endpoint("a", "/a"), withPool(endpoint("b", "/b"), "http://a", "http://b")), nil, s)
	wantExposed(t, s, 2, 3)
	s.Retain(nil)
	wantExposed(t, s, 0, 0)

	inForce(t, many(withPool(endpoint("a", "/a"), "http://a", "http://b"), endpoint("b", "/b")), small, s)
	wantExposed(t, s, 2, 3) // those that were in use stay so
	s.Retain(nil)
	large := inForce(t, many(endpoint("a", "/a"), withPool(endpoint("c", "/c"), "http://a", "http://b")), nil, s)
	wantExposed(t, s, 0, 0)
	e := match(large, "/c")
	wantExposed(t, s, 1, 2)
	if match(large, "/c") != e || large.Endpoint("c") != e || match(large, "/none") != nil {
		t.Error("a path does not have one endpoint")
	}
	wantExposed(t, s, 1, 2)
	if diff := cmp.Diff(map[string]bool{"a:80": true, "b:80": true}, s.Backends.Addresses()); diff != "" {
		t.Errorf("backends that are known (-want +got):\n%s", diff)
	}
}

// What is in use goes on in the next table, without a request.
func TestWarm(t *testing.T) {
	s := newState()
	first := inForce(t, many(endpoint("same", "/same"), endpoint("other", "/other"), endpoint("gone", "/gone"), endpoint("rests", "/rests")), nil, s)
	same, other := match(first, "/same"), match(first, "/other")
	match(first, "/gone")
	changed := endpoint("other", "/other")
	changed.ReplaceHost = true
	second := inForce(t, many(endpoint("same", "/same"), changed, endpoint("new", "/new"), endpoint("rests", "/rests")), first, s)
	wantExposed(t, s, 2, 2)
	if match(second, "/same") != same {
		t.Error("an endpoint that has not changed is not shared")
	}
	if e := match(second, "/other"); e == other || !e.ReplaceHost || e.Pool != other.Pool || e.Metrics != other.Metrics {
		t.Errorf("the changed endpoint is %+v, it was %+v", e, other)
	}
	wantExposed(t, s, 2, 2)
}

func TestRetain(t *testing.T) {
	s := newState()
	first := inForce(t, many(
		withPool(endpoint("e", "/e"), "http://kept:1/x", "http://gone:1", "http://KEPT:2"), withPool(endpoint("gone", "/gone"), "http://gone:2")), nil, s)
	e, gone := match(first, "/e"), match(first, "/gone")
	wantExposed(t, s, 2, 4)
	second := inForce(t, many(withPool(endpoint("e", "/e"), "http://KEPT:2", "http://kept:1/y"), endpoint("another", "/gone")), first, s)
	wantExposed(t, s, 1, 2)
	if diff := cmp.Diff(map[string]bool{"kept:1": true, "kept:2": true}, s.Backends.Addresses()); diff != "" {
		t.Errorf("backends that are known (-want +got):\n%s", diff)
	}
	now := match(second, "/e")
	is, was := now.Pool.Members()[0], e.Pool.Members()[2]
	if now.Metrics != e.Metrics || is.Health != was.Health || is.Metrics != was.Metrics {
		t.Error("what has stayed has new counters")
	}
	third := inForce(t, many(endpoint("gone", "/gone")), second, s)
	if match(third, "/gone").Metrics == gone.Metrics {
		t.Error("an endpoint that was away has its old counters")
	}
}

// A table that is compiled, and even warm, but never comes into force leaves
// nothing behind.
func TestTableThatNeverComesIntoForce(t *testing.T) {
	s := newState()
	rt := many(withPool(endpoint("e", "/e"), "http://a", "http://b", "http://c"))
	first := inForce(t, rt, nil, s)
	if got := take(match(first, "/e").Pool, 1); got != "a" {
		t.Fatalf("first is %s", got)
	}
	never := compile(t, many(withPool(endpoint("e", "/e"), "http://a", "http://x"), endpoint("new", "/new")), s)
	never.Warm(first)
	match(never, "/new")
	s.Retain(first)
	wantExposed(t, s, 1, 3)
	if s.Backends.Addresses()["x:80"] {
		t.Error("its backend is known")
	}
	second := inForce(t, rt, first, s)
	if got := take(match(second, "/e").Pool, 3); got != "bca" {
		t.Errorf("the cycle goes on with %s, want bca", got)
	}
}

// A request can have the table from before the change, and meet the endpoint
// after it.
func TestFirstUseInAnOldTable(t *testing.T) {
	s := newState()
	first := inForce(t, many(endpoint("gone", "/gone"), withPool(endpoint("e", "/e"), "http://old")), nil, s)
	second := inForce(t, many(withPool(endpoint("e", "/e"), "http://new")), first, s)
	for _, path := range []string{"/gone", "/e"} {
		e := match(first, path)
		e.Metrics.Begin(0)
		if m := pick(e.Pool); m.Health == nil || m.Metrics == nil || match(first, path) != e {
			t.Errorf("%s: endpoint %+v with member %+v", path, e, m)
		}
	}
	wantExposed(t, s, 0, 0)
	match(second, "/e")
	wantExposed(t, s, 1, 1)
}

// While tables change, requests on every thread meet endpoints for the first
// time; all meet the same ones, and no turn of a pool is lost or given twice.
func TestConcurrentFirstUse(t *testing.T) {
	s := newState()
	var live table.Live
	var tables [2]*routetablev1.RouteTable
	for i := range tables {
		tables[i] = many(withPool(endpoint("e", "/e"), "http://a", "http://b"), endpoint("x", fmt.Sprintf("/x%d", i)))
	}
	live.Store(inForce(t, tables[0], nil, s))
	stop := make(chan struct{})
	var g sync.WaitGroup
	var mu sync.Mutex
	turns := map[string]int{}
	for range 2 {
		g.Go(func() {
			own := map[string]int{}
			for n := 0; ; n++ {
				select {
				case <-stop:
					mu.Lock()
					defer mu.Unlock()
					for host, n := range own {
						turns[host] += n
					}
					return
				default:
				}
				tab := live.Load()
				own[pick(match(tab, "/e").Pool).Host]++
				path := fmt.Sprintf("/%04d", n%1000)
				if e := match(tab, path); e.Name != path || match(tab, path) != e {
					t.Errorf("%s is %q", path, e.Name)
				}
			}
		})
	}
	for i := range 10 {
		tab := compile(t, tables[i%2], s)
		tab.Warm(live.Load())
		live.Store(tab)
		s.Retain(tab)
	}
	close(stop)
	g.Wait()
	if a, b := turns["a"], turns["b"]; a-b > 1 || b-a > 1 {
		t.Errorf("a has had %d turns, b %d", a, b)
	}
}
