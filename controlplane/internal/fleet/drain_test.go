package fleet_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"reverseproxy/controlplane/internal/fleet"
	fleetv1 "reverseproxy/proto/fleet/v1"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

const drainedURL = "http://h:1"

// tell sends a heartbeat of data plane one about the drained backend.
func (s *server) tell(t *testing.T, p *player, version string, inFlight uint64) {
	t.Helper()
	s.hear(t, p, "one", &routetablev1.Heartbeat{
		State:   &routetablev1.State{Version: version},
		Watched: []*routetablev1.InFlight{{Url: drainedURL, Requests: inFlight}, {Url: "http://unasked"}},
	})
}

// recvReport receives until it is asked to report.
func (p *player) recvReport(t *testing.T) *routetablev1.Report {
	t.Helper()
	for {
		if r := p.recv(t).GetReport(); r != nil {
			return r
		}
	}
}

// wantDraining fails unless the drained backend is described so.
func (s *server) wantDraining(t *testing.T, inFlight uint64, holders ...*fleetv1.DrainHolder) {
	t.Helper()
	want := []*fleetv1.DrainedBackend{{Url: drainedURL, Configured: true, InFlight: inFlight, Holders: holders}}
	if inFlight > 0 {
		want[0].DataPlanes = 1
	}
	if diff := cmp.Diff(s.fleet.Observe().Draining, want, protocmp.Transform()); diff != "" {
		t.Errorf("draining (-got +want):\n%s", diff)
	}
}

// drained is a table without requests for the drained backend.
func drained(rt *routetablev1.RouteTable) *routetablev1.RouteTable {
	out := proto.CloneOf(rt)
	for _, e := range out.GetEndpoints() {
		for _, b := range e.GetPool() {
			if b.GetUrl() == drainedURL {
				b.Weight = 0
			}
		}
	}
	return out
}

// A data plane counts as quiet once it has said so about the table that drains the
// backend, while it runs that, and not a moment longer.
func TestQuietIsWhatWasToldUnderTheDesiredTable(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	rt := pools([]string{drainedURL, "http://h:2"})
	open := s.publish(t, rt)
	p := s.join(t, "one", "1", open.Version)
	s.waitState(t, "one", "applied")
	if d := s.fleet.Observe().Draining; len(d) > 0 {
		t.Errorf("draining before: %v", d)
	}

	shut := s.publish(t, drained(rt))
	s.fleet.SetDrained([]fleet.Drained{{URL: drainedURL, Configured: true}})
	if diff := cmp.Diff(p.recvReport(t), &routetablev1.Report{Watch: []string{drainedURL}}, protocmp.Transform()); diff != "" {
		t.Errorf("report (-got +want):\n%s", diff)
	}
	holder := &fleetv1.DrainHolder{Id: "one", SessionId: "1"}
	s.wantDraining(t, 0, holder)
	s.tell(t, p, open.Version, 0)
	s.wantDraining(t, 0, holder) // it has not applied it

	p.applied(t, shut.Version, 2)
	s.waitState(t, "one", "applied")
	s.wantDraining(t, 0, holder) // what it has told was before
	s.tell(t, p, shut.Version, 3)
	s.wantDraining(t, 3, &fleetv1.DrainHolder{Id: "one", SessionId: "1", Told: true, InFlight: 3})
	s.report(t, p, "one", shut.Version) // which does not tell changes nothing
	s.tell(t, p, shut.Version, 0)
	s.wantDraining(t, 0)

	// Taken back, applied, and drained again: the same version as before, but what was
	// told under it is over.
	s.publish(t, rt)
	p.recvTable(t)
	p.applied(t, open.Version, 3)
	s.waitState(t, "one", "applied")
	s.publish(t, drained(rt))
	p.recvTable(t)
	p.applied(t, shut.Version, 4)
	s.waitState(t, "one", "applied")
	s.wantDraining(t, 0, holder)
	s.tell(t, p, shut.Version, 0)
	s.wantDraining(t, 0)

	// One that vanishes may go on sending requests to it.
	p.close()
	s.waitState(t, "one", "disconnected")
	s.wantDraining(t, 0, &fleetv1.DrainHolder{Id: "one", SessionId: "1"})

	// Who comes later is asked as well; the next question is about nobody.
	p = s.join(t, "one", "2", shut.Version)
	if r := p.recvReport(t); len(r.GetWatch()) != 1 {
		t.Errorf("a new stream is asked %v", r)
	}
	s.fleet.SetDrained(nil)
	if r := p.recvReport(t); len(r.GetWatch()) != 0 {
		t.Errorf("after all were taken back it is asked %v", r)
	}
}
