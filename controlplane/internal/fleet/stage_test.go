package fleet_test

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"reverseproxy/controlplane/internal/fleet"
	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// made returns a table that is not published.
func made(t *testing.T, n int, revision uint64) *fleet.Table {
	t.Helper()
	rt := table(n)
	m, err := fleet.NewTable(rt, routetable.Version(rt), revision, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// joinAt opens a stream of a data plane that runs a table.
func (s *server) joinAt(t *testing.T, id string, runs *fleet.Table) *player {
	t.Helper()
	p := s.open(t)
	p.hello(t, &routetablev1.Hello{Id: id, SessionId: "1", State: &routetablev1.State{Version: runs.Version, Revision: runs.Revision}})
	return p
}

// wantCurrent receives that the data plane runs its table already.
func (p *player) wantCurrent(t *testing.T, want *fleet.Table) {
	t.Helper()
	m := p.recv(t)
	for m.GetAlive() != nil { // the number of data planes has changed a moment ago
		m = p.recv(t)
	}
	if m.GetCurrent().GetVersion() != want.Version || m.GetCurrent().GetRevision() != want.Revision {
		t.Fatalf("got %v, want that version %s, revision %d, is current", m, want.Version, want.Revision)
	}
}

// wantTable receives a table and says that it is applied.
func (p *player) wantTable(t *testing.T, want *fleet.Table) {
	t.Helper()
	if _, c := p.recvTable(t); c.GetVersion() != want.Version || c.GetRevision() != want.Revision {
		t.Fatalf("got version %s, revision %d, want %s, %d", c.GetVersion(), c.GetRevision(), want.Version, want.Revision)
	}
	p.applied(t, want.Version, want.Revision)
}

// wantNothing asks for a sign of life, before which there is to be nothing else.
func (p *player) wantNothing(t *testing.T, runs *fleet.Table) {
	t.Helper()
	if more := p.alive(t, runs.Version); len(more) > 0 {
		t.Fatalf("got %v, want nothing", more)
	}
}

func TestAStageIsForTheChosen(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	base := s.publish(t, table(1))
	a, b := s.joinAt(t, "a", base), s.joinAt(t, "b", base)
	a.wantCurrent(t, base)
	b.wantCurrent(t, base)

	g := s.fleet.Stage(made(t, 2, 2), base, map[string]bool{"a": true})
	if g.Table.Revision != 2 || g.Base != base {
		t.Errorf("revision %d from %d, want 2 from 1, which stays as it was", g.Table.Revision, g.Base.Revision)
	}
	a.wantTable(t, g.Table)
	s.waitState(t, "a", "applied")
	b.wantNothing(t, base)
	s.waitState(t, "b", "pending")

	// Who comes now gets what its group has.
	c := s.join(t, "c", "1", "")
	c.wantTable(t, base)
	a.close()
	s.waitState(t, "a", "disconnected")
	a = s.joinAt(t, "a", base)
	a.wantTable(t, g.Table)
	// Nobody's table changes only to change back.
	e := s.joinAt(t, "e", g.Table)
	e.wantCurrent(t, g.Table)

	s.fleet.Choose(map[string]bool{"a": true, "b": true}, false)
	b.wantTable(t, g.Table)
	a.wantNothing(t, g.Table)
	c.wantNothing(t, base)
	s.fleet.Choose(nil, true)
	c.wantTable(t, g.Table)
	b.wantNothing(t, g.Table)
	d := s.join(t, "d", "1", "")
	d.wantTable(t, g.Table)
	for _, id := range []string{"a", "b", "c", "d"} {
		s.waitState(t, id, "applied")
	}
}

func TestTheLastStageIsForEverybody(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	base := s.publish(t, table(1))
	a := s.joinAt(t, "a", base)
	a.wantCurrent(t, base)
	g := s.fleet.StageAll(made(t, 3, 3), made(t, 2, 3))
	if g.Table.Revision != 4 || g.Base != nil {
		t.Errorf("revision %d, want 4, above that of the base, for everybody", g.Table.Revision)
	}
	a.wantTable(t, g.Table) // and the base was not between
	a.wantNothing(t, g.Table)
	b := s.join(t, "b", "1", "")
	b.wantTable(t, g.Table)
	b.wantNothing(t, g.Table)
}

func TestAStageIsTakenBackByANewRevisionOfItsBase(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	base := s.publish(t, table(1))
	a, b := s.joinAt(t, "a", base), s.joinAt(t, "b", base)
	a.wantCurrent(t, base)
	b.wantCurrent(t, base)
	g := s.fleet.Stage(made(t, 2, 2), base, map[string]bool{"a": true})
	a.wantTable(t, g.Table)
	back := s.publish(t, table(1))
	if back.Revision != 3 || back.Version != base.Version {
		t.Errorf("revision %d, version %s, want 3 and the version of the base", back.Revision, back.Version)
	}
	a.wantTable(t, back)
	b.wantCurrent(t, back)
	s.waitState(t, "a", "applied")
	s.waitState(t, "b", "applied")
}

func TestAStageSupersedesAnother(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	base := s.publish(t, table(1))
	a := s.joinAt(t, "a", base)
	a.wantCurrent(t, base)
	first := s.fleet.Stage(made(t, 2, 2), base, map[string]bool{"a": true})
	a.wantTable(t, first.Table)
	second := s.fleet.Stage(made(t, 3, 3), base, map[string]bool{"a": true})
	if second.Table.Revision != 3 || second.Base != base {
		t.Errorf("revision %d from %d, want 3 from 1", second.Table.Revision, second.Base.Revision)
	}
	a.wantTable(t, second.Table) // and the base was not between
	s.waitState(t, "a", "applied")
}

// What is drained during a roll-out is drained in both tables.
func TestBothTablesOfAStageChange(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	base := s.publish(t, table(1))
	a, b := s.joinAt(t, "a", base), s.joinAt(t, "b", base)
	a.wantCurrent(t, base)
	b.wantCurrent(t, base)
	chosen := map[string]bool{"a": true}
	first := s.fleet.Stage(made(t, 2, 2), base, chosen)
	a.wantTable(t, first.Table)

	both := s.fleet.Stage(made(t, 4, 4), made(t, 3, 3), chosen)
	a.wantTable(t, both.Table)
	b.wantTable(t, both.Base)

	// The base alone: the table stays the newest.
	only := s.fleet.Stage(made(t, 4, 4), made(t, 5, 5), chosen)
	if only.Table.Revision != 6 {
		t.Errorf("revision %d, want 6, above that of the base", only.Table.Revision)
	}
	a.wantCurrent(t, only.Table)
	b.wantTable(t, only.Base)

	// Nobody's report is taken for that of another control plane's data plane.
	a.wantNothing(t, only.Table)
	b.wantNothing(t, only.Base)
	if got := s.fleet.Goal(); got != only {
		t.Errorf("revision %d, want that it has stayed %d", got.Table.Revision, only.Table.Revision)
	}
}

func TestAStageContinuesThatOfTheLastRun(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	g := s.fleet.Stage(made(t, 2, 9), made(t, 1, 7), map[string]bool{"a": true})
	a, b := s.joinAt(t, "a", g.Table), s.joinAt(t, "b", g.Base)
	a.wantCurrent(t, g.Table)
	b.wantCurrent(t, g.Base)
	if g.Table.Revision != 9 || g.Base.Revision != 7 {
		t.Errorf("revisions %d from %d, want 9 from 7", g.Table.Revision, g.Base.Revision)
	}
	if next := s.publish(t, table(3)); next.Revision != 10 {
		t.Errorf("the next revision is %d, want 10", next.Revision)
	}
}

// convergenceSum returns the sum of the histogram of convergence, in seconds.
func convergenceSum(t *testing.T, f *fleet.Fleet) float64 {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(f)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == "controlplane_convergence_seconds" {
			return family.GetMetric()[0].GetHistogram().GetSampleSum()
		}
	}
	t.Fatal("no convergence")
	return 0
}

func TestConvergenceBeginsWithTheStep(t *testing.T) {
	c := newClock()
	s := start(t, fleet.Options{Now: c.Now, SilenceLimit: time.Hour}, fleet.ServerOptions{})
	base := s.publish(t, table(1))
	a, b := s.joinAt(t, "a", base), s.joinAt(t, "b", base)
	a.wantCurrent(t, base)
	b.wantCurrent(t, base)
	g := s.fleet.Stage(made(t, 2, 2), base, map[string]bool{"a": true})
	a.wantTable(t, g.Table)
	s.waitState(t, "a", "applied")
	c.Advance(time.Minute)
	s.fleet.Choose(nil, true)
	b.wantTable(t, g.Table)
	s.waitState(t, "b", "applied")
	if got := convergenceSum(t, s.fleet); got != 0 {
		t.Errorf("sum is %v s, want 0: b has not converged while it waited for its step", got)
	}
}
