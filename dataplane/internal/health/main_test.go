package health_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"reverseproxy/dataplane/internal/backend"
	"reverseproxy/dataplane/internal/health"
	"reverseproxy/dataplane/internal/metrics"
	"reverseproxy/dataplane/internal/table"
	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is a manager and the tables that it watches.
type fixture struct {
	t       *testing.T
	manager *health.Manager
	state   *table.State
	current *table.Table

	mu  sync.Mutex
	log bytes.Buffer
}

func (f *fixture) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.log.Write(p)
}

// logged returns the log so far.
func (f *fixture) logged() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.log.String()
}

func start(t *testing.T, resolver *net.Resolver) *fixture {
	t.Helper()
	f := &fixture{t: t}
	f.manager = health.New(health.Options{Resolver: resolver, Log: slog.New(slog.NewTextHandler(f, nil))})
	t.Cleanup(f.manager.Close)
	f.state = &table.State{Backends: backend.NewRegistry(), Metrics: metrics.NewSet(1), Watcher: f.manager}
	return f
}

// serve puts a table with these endpoints in force, as the activator does.
func (f *fixture) serve(endpoints ...*routetablev1.Endpoint) {
	f.t.Helper()
	sec := func(n int64) *durationpb.Duration { return &durationpb.Duration{Seconds: n} }
	rt := &routetablev1.RouteTable{
		Port: 8000, Endpoints: endpoints, ResolveInterval: durationpb.New(100 * time.Millisecond),
		Limits: &routetablev1.Limits{MaxHeadBytes: 65536, MaxHeaderCount: 100, MaxUriBytes: 8192,
			HeaderTimeout: sec(10), IdleTimeout: sec(60), MaxConnections: 100},
	}
	for _, e := range endpoints {
		e.Timeouts = &routetablev1.Timeouts{Connect: sec(1), Response: sec(1), Idle: sec(1)}
		e.Path = &routetablev1.Endpoint_Exact{Exact: "/" + e.GetName()}
	}
	encoded, err := proto.Marshal(rt)
	if err != nil {
		f.t.Fatal(err)
	}
	next, err := table.New(encoded, routetable.Version(rt), 1, f.state)
	if err != nil {
		f.t.Fatal(err)
	}
	next.Warm(f.current)
	f.current = next
	f.state.Retain(next)
}

func (f *fixture) pool(endpoint string) *table.Pool { return f.current.Endpoint(endpoint).Pool }

// gets returns which of the members of an endpoint get requests, by their number.
func (f *fixture) gets(endpoint string) string {
	p := f.pool(endpoint)
	seen := map[*backend.Member]bool{}
	for range 4 * len(p.Members()) {
		if m := p.Pick(&table.Choice{}); m != nil {
			seen[m.Health] = true
		}
	}
	var list []byte
	for i, m := range p.Members() {
		if seen[m.Health] {
			list = fmt.Append(list, i)
		}
	}
	return string(list)
}

// endpoint returns an endpoint; its checks are to be added.
func endpoint(name string, urls ...string) *routetablev1.Endpoint {
	e := &routetablev1.Endpoint{Name: name}
	for _, u := range urls {
		e.Pool = append(e.Pool, &routetablev1.Backend{Url: u, Weight: 1})
	}
	return e
}

// probed gives an endpoint a fast active check.
func probed(e *routetablev1.Endpoint, changes ...func(*routetablev1.ActiveCheck)) *routetablev1.Endpoint {
	e.ActiveCheck = &routetablev1.ActiveCheck{
		Method: "GET", Path: "/health", ExpectStatus: []*routetablev1.StatusRange{{First: 200, Last: 299}},
		Interval: durationpb.New(100 * time.Millisecond), Timeout: durationpb.New(100 * time.Millisecond),
		JitterPercent: 20, HealthyAfter: 2, UnhealthyAfter: 3,
	}
	for _, change := range changes {
		change(e.ActiveCheck)
	}
	return e
}

// judged gives an endpoint a passive check.
func judged(e *routetablev1.Endpoint, failures, percent uint32) *routetablev1.Endpoint {
	e.PassiveCheck = &routetablev1.PassiveCheck{
		ConsecutiveFailures: failures, EjectFor: durationpb.New(10 * time.Second), MaxEjectedPercent: percent,
	}
	return e
}

// origin is a backend that answers probes as it is told.
type origin struct {
	*httptest.Server
	mu     sync.Mutex
	answer http.HandlerFunc
	probes int
	last   *http.Request
}

func newOrigin(t *testing.T) *origin {
	t.Helper()
	o := &origin{}
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.mu.Lock()
		o.probes++
		o.last = r.Clone(r.Context())
		answer := o.answer
		o.mu.Unlock()
		if answer != nil {
			answer(w, r)
		}
	}))
	t.Cleanup(o.Close)
	return o
}

func (o *origin) answers(h http.HandlerFunc) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.answer = h
}

func (o *origin) seen() (probes int, last *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.probes, o.last
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}
