package fleet_test

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"

	"reverseproxy/controlplane/internal/fleet"
	fleetv1 "reverseproxy/proto/fleet/v1"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// pools returns a table with an endpoint for each pool of URLs: a, b, …
func pools(list ...[]string) *routetablev1.RouteTable {
	rt := &routetablev1.RouteTable{Port: 1}
	for i, urls := range list {
		e := &routetablev1.Endpoint{Name: string(rune('a' + i)), Path: &routetablev1.Endpoint_Exact{Exact: fmt.Sprint("/", i)}}
		for _, url := range urls {
			e.Pool = append(e.Pool, &routetablev1.Backend{Url: url, Weight: 1})
		}
		rt.Endpoints = append(rt.Endpoints, e)
	}
	return rt
}

// hear sends a heartbeat of a data plane, and waits until it has been taken.
func (s *server) hear(t *testing.T, p *player, id string, h *routetablev1.Heartbeat) {
	t.Helper()
	h.RequestsTotal = s.row(t, id).GetRequestsTotal() + 1
	p.send(t, &routetablev1.SubscribeRequest{Message: &routetablev1.SubscribeRequest_Heartbeat{Heartbeat: h}})
	eventually(t, "the heartbeat is taken", func() bool { return s.row(t, id).GetRequestsTotal() == h.RequestsTotal })
}

// report sends a heartbeat about backends.
func (s *server) report(t *testing.T, p *player, id, version string, reports ...*routetablev1.BackendReport) {
	t.Helper()
	s.hear(t, p, id, &routetablev1.Heartbeat{State: &routetablev1.State{Version: version}, Backends: reports})
}

// wantBackends fails unless the fleet describes the backends so.
func (s *server) wantBackends(t *testing.T, endpoint string, limit int, want *fleetv1.BackendsResponse) {
	t.Helper()
	got := s.fleet.Backends(endpoint, limit)
	if diff := cmp.Diff(got, want, protocmp.Transform(), protocmp.IgnoreFields(want, "version", "revision")); diff != "" {
		t.Errorf("backends of %q (-got +want):\n%s", endpoint, diff)
	}
}

func TestBackendsAreThoseOfTheWholeFleet(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	table := s.publish(t, pools([]string{"http://h:1", "http://h:2"}, []string{"http://h:1"}, []string{"http://h:3"}))
	one, two := s.join(t, "one", "1", table.Version), s.join(t, "two", "2", table.Version)
	s.waitState(t, "one", "applied")
	s.waitState(t, "two", "applied")
	s.report(t, one, "one", table.Version,
		&routetablev1.BackendReport{Endpoint: "a", Url: "http://h:1", Requests: 10, Failures: 1, InFlight: 2, RequestsPerSecond: 5, FailuresPerSecond: 0.5},
		&routetablev1.BackendReport{Endpoint: "a", Url: "http://h:2", Requests: 7, Trouble: "refused\n"},
		&routetablev1.BackendReport{Endpoint: "b", Url: "http://h:1", Requests: 1, RequestsPerSecond: math.NaN(), FailuresPerSecond: math.Inf(1)},
		&routetablev1.BackendReport{Endpoint: "gone", Url: "http://h:1", Requests: 1, RequestsPerSecond: 1000, Trouble: "not counted"},
	)
	s.report(t, two, "two", table.Version,
		&routetablev1.BackendReport{Endpoint: "a", Url: "http://h:1", Requests: 20, InFlight: 1, RequestsPerSecond: 7},
		&routetablev1.BackendReport{Endpoint: "a", Url: "http://h:2", Trouble: "refused "},
	)

	first := &fleetv1.BackendStatus{
		Endpoint: "a", Url: "http://h:1", Weight: 1, DataPlanes: 2, Healthy: 2,
		Requests: 30, Failures: 1, RequestsPerSecond: 12, FailuresPerSecond: 0.5, InFlight: 3,
	}
	second := &fleetv1.BackendStatus{
		Endpoint: "a", Url: "http://h:2", Weight: 1, DataPlanes: 2, Requests: 7,
		Troubles: []*fleetv1.Trouble{{Reason: "refused ", DataPlanes: 2}},
	}
	s.wantBackends(t, "a", 0, &fleetv1.BackendsResponse{
		Backends: []*fleetv1.BackendStatus{first, second}, DataPlanes: 2, RequestsPerSecond: 12, FailuresPerSecond: 0.5, InFlight: 3,
	})
	// An endpoint that nobody uses has its backends all the same.
	s.wantBackends(t, "c", 0, &fleetv1.BackendsResponse{
		Backends: []*fleetv1.BackendStatus{{Endpoint: "c", Url: "http://h:3", Weight: 1}}, DataPlanes: 2,
	})
	s.wantBackends(t, "", 2, &fleetv1.BackendsResponse{
		Backends: []*fleetv1.BackendStatus{first, second}, BackendsOmitted: 1, DataPlanes: 2,
		RequestsPerSecond: 12, FailuresPerSecond: 0.5, InFlight: 3,
	})
	if s.fleet.Backends("d", 0) != nil {
		t.Error("an endpoint that does not exist has backends")
	}
	if n := s.fleet.Observe().Unhealthy; n != 1 {
		t.Errorf("%d backends are unhealthy somewhere, want 1", n)
	}

	// The rows of one that has left count no more.
	two.close()
	s.waitState(t, "two", "disconnected")
	first.DataPlanes, first.Healthy, first.Requests, first.RequestsPerSecond, first.InFlight = 1, 1, 10, 5, 2
	second.DataPlanes, second.Troubles[0].DataPlanes = 1, 1
	s.wantBackends(t, "a", 1, &fleetv1.BackendsResponse{
		Backends: []*fleetv1.BackendStatus{first}, BackendsOmitted: 1, DataPlanes: 1, RequestsPerSecond: 5, FailuresPerSecond: 0.5, InFlight: 2,
	})

	// A backend that has recovered, and one that has left the table and come back
	// with nothing told about it.
	s.report(t, one, "one", table.Version, &routetablev1.BackendReport{Endpoint: "a", Url: "http://h:2", Requests: 8})
	if n := s.fleet.Observe().Unhealthy; n != 0 {
		t.Errorf("%d backends are unhealthy somewhere, want none", n)
	}
	without := s.publish(t, pools([]string{"http://h:2"}))
	one.recvTable(t)
	one.applied(t, without.Version, 2)
	s.waitState(t, "one", "applied")
	s.fleet.Sweep()
	s.publish(t, pools([]string{"http://h:1", "http://h:2"}))
	s.wantBackends(t, "a", 0, &fleetv1.BackendsResponse{DataPlanes: 1, Backends: []*fleetv1.BackendStatus{
		{Endpoint: "a", Url: "http://h:1", Weight: 1},
		{Endpoint: "a", Url: "http://h:2", Weight: 1, DataPlanes: 1, Healthy: 1, Requests: 8},
	}})
}

// What a data plane reports is bounded.
func TestReportsAreBounded(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	table := s.publish(t, pools([]string{"http://h:1"}))
	p := s.join(t, "one", "1", table.Version)
	s.waitState(t, "one", "applied")
	for i := range 3 {
		var many []*routetablev1.BackendReport
		for j := range 1000 {
			many = append(many, &routetablev1.BackendReport{Endpoint: fmt.Sprint(i), Url: fmt.Sprint(j)})
		}
		s.report(t, p, "one", table.Version, many...)
	}
	if !s.fleet.Backends("", 0).GetIncomplete() {
		t.Error("thousands of backends that the table has not are all kept")
	}
	p.close()
	s.waitState(t, "one", "disconnected")
	if s.fleet.Backends("", 0).GetIncomplete() {
		t.Error("still incomplete when nobody reports any more")
	}

	for name, report := range map[string]*routetablev1.BackendReport{
		"name":    {Endpoint: strings.Repeat("x", 1000)},
		"url":     {Url: strings.Repeat("x", 10_000)},
		"trouble": {Trouble: strings.Repeat("x", 10_000)},
	} {
		t.Run(name, func(t *testing.T) {
			p := s.join(t, name, "1", table.Version)
			p.send(t, &routetablev1.SubscribeRequest{Message: &routetablev1.SubscribeRequest_Heartbeat{
				Heartbeat: &routetablev1.Heartbeat{Backends: []*routetablev1.BackendReport{report}},
			}})
			if err := p.recvEnd(); status.Code(err) != codes.InvalidArgument {
				t.Errorf("the stream ended with %v", err)
			}
		})
	}
}

// Data planes of earlier releases cut what they say about a backend later than this side.
func TestALongTroubleIsCut(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	table := s.publish(t, pools([]string{"http://h:1"}))
	p := s.join(t, "one", "1", table.Version)
	s.waitState(t, "one", "applied")
	s.report(t, p, "one", table.Version, &routetablev1.BackendReport{
		Endpoint: "a", Url: "http://h:1", Trouble: strings.Repeat("x", 2048) + "…",
	})
	troubles := s.fleet.Backends("", 0).GetBackends()[0].GetTroubles()
	if want := strings.Repeat("x", 1000) + "…"; len(troubles) != 1 || troubles[0].GetReason() != want {
		t.Errorf("got %v, want the first 1,000 bytes", troubles)
	}
}

func TestAsk(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	table := s.publish(t, pools([]string{"http://h:1"}))
	p := s.join(t, "one", "1", table.Version)
	s.waitState(t, "one", "applied")
	since := s.fleet.Ask(true)
	if s.fleet.Answered(since) {
		t.Error("answered before it was")
	}
	for p.recv(t).GetReport() == nil {
	}
	s.report(t, p, "one", table.Version)
	if !s.fleet.Answered(since) {
		t.Error("not answered after it was")
	}
}
