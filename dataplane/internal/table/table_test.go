package table_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"reverseproxy/dataplane/internal/backend"
	"reverseproxy/dataplane/internal/metrics"
	"reverseproxy/dataplane/internal/table"
	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

func newState() *table.State {
	return &table.State{Backends: backend.NewRegistry(), Metrics: metrics.NewSet(2)}
}

// endpoint makes one of its name, its path and conditions "host:", "method:" or
// "name=value"; its pool is one backend.
func endpoint(name, from string, conditions ...string) *routetablev1.Endpoint {
	path, prefix, err := routetable.ParseFrom(from)
	if err != nil {
		panic(err)
	}
	e := &routetablev1.Endpoint{
		Name: name, Path: &routetablev1.Endpoint_Exact{Exact: path},
		Timeouts: &routetablev1.Timeouts{
			Connect: durationpb.New(time.Second), Response: durationpb.New(30 * time.Second), Idle: durationpb.New(90 * time.Second),
		},
		Pool: []*routetablev1.Backend{{Url: "http://localhost:5000", Weight: 1}},
	}
	if prefix {
		e.Path = &routetablev1.Endpoint_Prefix{Prefix: path}
	}
	for _, c := range conditions {
		if host, ok := strings.CutPrefix(c, "host:"); ok {
			e.Hosts = append(e.Hosts, host)
		} else if method, ok := strings.CutPrefix(c, "method:"); ok {
			e.Methods = append(e.Methods, method)
		} else {
			name, value, _ := strings.Cut(c, "=")
			e.Headers = append(e.Headers, &routetablev1.HeaderMatch{Name: name, Value: value})
		}
	}
	return e
}

// withPool gives an endpoint the pool of "url weight" pairs.
func withPool(e *routetablev1.Endpoint, urls ...string) *routetablev1.Endpoint {
	e.Pool = nil
	for _, s := range urls {
		b := &routetablev1.Backend{Weight: 1}
		fmt.Sscan(s, &b.Url, &b.Weight)
		e.Pool = append(e.Pool, b)
	}
	return e
}

func wireTable(endpoints ...*routetablev1.Endpoint) *routetablev1.RouteTable {
	slices.SortFunc(endpoints, func(a, b *routetablev1.Endpoint) int { return strings.Compare(a.Name, b.Name) })
	return &routetablev1.RouteTable{
		Port: 8000, Endpoints: endpoints,
		Limits: &routetablev1.Limits{
			MaxHeadBytes: 64 << 10, MaxHeaderCount: 100, MaxUriBytes: 8 << 10, MaxConnections: 10_000,
			HeaderTimeout: durationpb.New(10 * time.Second), IdleTimeout: durationpb.New(time.Minute),
		},
	}
}

func encode(t testing.TB, rt *routetablev1.RouteTable) []byte {
	t.Helper()
	encoded, err := proto.Marshal(rt)
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}

func compile(t testing.TB, rt *routetablev1.RouteTable, s *table.State) *table.Table {
	t.Helper()
	tab, err := table.New(encode(t, rt), routetable.Version(rt), 1, s)
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

// fields is a request's header: name → values.
type fields map[string][]string

func (f fields) HasValue(name, value string) bool { return slices.Contains(f[name], value) }

func TestNew(t *testing.T) {
	rt := wireTable(
		withPool(endpoint("b", "/b/*"), "http://Localhost:5000/x?y 3", "http://localhost", "http://localhost:5000/z 0"),
		endpoint("a", "/a"),
	)
	rt.Endpoints[1].ReplaceHost = true
	rt.HideMetricsOnProxyPort = true
	s := newState()
	version := routetable.Version(rt)
	got, err := table.New(encode(t, rt), version, 7, s)
	if err != nil {
		t.Fatal(err)
	}
	if got.Version != version || got.Revision != 7 || got.Port != 8000 || got.MetricsOnProxyPort {
		t.Errorf("version %q, revision %d, port %d, metrics on proxy port %v", got.Version, got.Revision, got.Port, got.MetricsOnProxyPort)
	}
	want := table.Limits{HeadBytes: 64 << 10, Fields: 100, TargetBytes: 8 << 10, HeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, Connections: 10_000}
	if diff := cmp.Diff(want, got.Limits); diff != "" {
		t.Errorf("limits (-want +got):\n%s", diff)
	}
	if n := got.Len(); n != 2 {
		t.Fatalf("%d endpoints", n)
	}
	if got.Endpoint("") != nil || got.Endpoint("aa") != nil || got.Endpoint("c") != nil {
		t.Error("there is an endpoint of another name")
	}
	e := got.Endpoint("b")
	if e.Name != "b" || !e.ReplaceHost || e.ConnectTimeout != time.Second || e.ResponseTimeout != 30*time.Second || e.IdleTimeout != 90*time.Second {
		t.Errorf("endpoint is %+v", e)
	}
	if e.Metrics != s.Metrics.Endpoint("b") {
		t.Error("the endpoint has counters of its own")
	}
	type seen struct {
		URL, Host, Addr string
		Weight          uint32
	}
	var backends []seen
	for _, m := range e.Pool.Members() {
		state := m.Health.State
		backends = append(backends, seen{m.URL, m.Host, state.Addr(), m.Weight})
		if state != s.Backends.State(state.Addr()) || m.Metrics != e.Metrics.Backend(m.URL) {
			t.Errorf("%s has state or counters of its own", m.URL)
		}
	}
	if diff := cmp.Diff([]seen{
		{"http://Localhost:5000/x?y", "Localhost:5000", "localhost:5000", 3},
		{"http://localhost", "localhost", "localhost:80", 1},
		{"http://localhost:5000/z", "localhost:5000", "localhost:5000", 0},
	}, backends); diff != "" {
		t.Errorf("backends (-want +got):\n%s", diff)
	}
}

func TestNewRefusesInvalidTables(t *testing.T) {
	rt := wireTable(endpoint("a", "/a"))
	rt.Endpoints[0].Pool[0].Url = "https://h"
	got, err := table.New(encode(t, rt), routetable.Version(rt), 1, newState())
	var p *routetable.Problem
	if got != nil || !errors.As(err, &p) || p.Path != "endpoints[0].pool[0].url" {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestNewRefusesAnotherVersion(t *testing.T) {
	encoded := encode(t, wireTable(endpoint("a", "/a")))
	if got, err := table.New(encoded, "v", 1, newState()); got != nil || err == nil || !strings.Contains(err.Error(), "announced as v") {
		t.Errorf("got %v, %v", got, err)
	}
}

// Endpoints tie by what they have in common; where they are in the table, and
// how many others there are, does not matter.
func TestNewRefusesTies(t *testing.T) {
	rt := wireTable(
		endpoint("a", "/x"), endpoint("b", "/x", "host:h"), endpoint("c", "/x", "method:GET"), endpoint("d", "/x/*"),
		endpoint("e", "/x", "host:h", "host:i"), endpoint("f", "/x", "x-a=1"), endpoint("g", "/x", "x-a=2"))
	want := routetable.Problems(routetable.Validate(rt))
	_, err := table.New(encode(t, rt), routetable.Version(rt), 1, newState())
	if diff := cmp.Diff(want, routetable.Problems(err)); diff != "" || len(want) != 3 {
		t.Errorf("problems (-Validate +New):\n%s", diff)
	}
}

func TestDescribe(t *testing.T) {
	tab := compile(t, wireTable(
		withPool(endpoint("a", "/a"), "http://a 0", "http://B/x?y 3"), withPool(endpoint("b", "/b"), "http://a 0"), endpoint("c", "/c")), newState())
	type seen struct {
		Name string
		Pool []table.Entry
	}
	var got []seen
	for name, d := range tab.Describe() {
		got = append(got, seen{name, d.Pool})
		if name == "b" {
			break
		}
	}
	if diff := cmp.Diff([]seen{{"a", []table.Entry{{"http://a", 0}, {"http://B/x?y", 3}}}, {"b", []table.Entry{{"http://a", 0}}}}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLive(t *testing.T) {
	var live table.Live
	if live.Load() != nil {
		t.Error("there is a table from the start")
	}
	tab := compile(t, wireTable(), newState())
	live.Store(tab)
	if live.Load() != tab {
		t.Error("Load does not return what was stored")
	}
}
