package fleet_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"reverseproxy/controlplane/internal/fleet"
	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// joinReady opens a stream of a data plane that can prepare and runs a table.
func (s *server) joinReady(t *testing.T, id string, runs *fleet.Table) *player {
	t.Helper()
	p := s.open(t)
	p.helloReady(t, id, runs)
	return p
}

func (p *player) helloReady(t *testing.T, id string, runs *fleet.Table) {
	t.Helper()
	p.hello(t, &routetablev1.Hello{
		Id: id, SessionId: "1", Features: []routetablev1.Feature{routetablev1.Feature_FEATURE_PREPARE},
		State: &routetablev1.State{Version: runs.Version, Revision: runs.Revision},
	})
	p.wantCurrent(t, runs)
}

// next returns a table that is to follow the desired one.
func (s *server) next(t *testing.T, rt *routetablev1.RouteTable) *fleet.Table {
	t.Helper()
	table, err := fleet.NewTable(rt, routetable.Version(rt), s.fleet.Desired().Revision+1, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// preparing prepares a table in the background and returns its outcome.
func (s *server) preparing(t *testing.T, table *fleet.Table, expected int, timeout time.Duration) <-chan error {
	t.Helper()
	outcome := make(chan error, 1)
	go func() { outcome <- s.fleet.Prepare(t.Context(), table, expected, timeout) }()
	return outcome
}

// wantHold receives a table that is to be prepared.
func (p *player) wantHold(t *testing.T, want *fleet.Table) {
	t.Helper()
	if _, c := p.recvTable(t); !c.GetHold() || c.GetVersion() != want.Version {
		t.Fatalf("got version %s, to hold: %v; want %s to hold", c.GetVersion(), c.GetHold(), want.Version)
	}
}

func (p *player) prepared(t *testing.T, version string) {
	t.Helper()
	p.send(t, &routetablev1.SubscribeRequest{Message: &routetablev1.SubscribeRequest_Prepared{Prepared: &routetablev1.Prepared{Version: version}}})
}

// recvWord receives the next message that is no sign of life.
func (p *player) recvWord(t *testing.T) *routetablev1.SubscribeResponse {
	t.Helper()
	for {
		if m := p.recv(t); m.GetAlive() == nil {
			return m
		}
	}
}

func (p *player) wantCommit(t *testing.T, want *fleet.Table) {
	t.Helper()
	if m := p.recvWord(t); m.GetCommit().GetVersion() != want.Version || m.GetCommit().GetRevision() != want.Revision {
		t.Fatalf("got %v, want the commit of version %s, revision %d", m, want.Version, want.Revision)
	}
}

func (p *player) wantDiscard(t *testing.T, want *fleet.Table) {
	t.Helper()
	if m := p.recvWord(t); m.GetDiscard() == nil || m.GetDiscard().GetVersion() != want.Version {
		t.Fatalf("got %v, want that version %s is to be dropped", m, want.Version)
	}
}

// wantReasons checks why a table is not prepared.
func wantReasons(t *testing.T, outcome <-chan error, want ...string) {
	t.Helper()
	var unprepared *fleet.UnpreparedError
	select {
	case err := <-outcome:
		if !errors.As(err, &unprepared) {
			t.Fatalf("outcome %v, want reasons", err)
		}
	case <-time.After(patience):
		t.Fatal("no outcome")
	}
	if !slices.EqualFunc(unprepared.Reasons, want, strings.HasPrefix) {
		t.Errorf("reasons %q, want those that begin with %q", unprepared.Reasons, want)
	}
}

func wantReady(t *testing.T, outcome <-chan error) {
	t.Helper()
	select {
	case err := <-outcome:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(patience):
		t.Fatal("no outcome")
	}
}

func TestASwitchIsReleasedWhenAllAreReady(t *testing.T) {
	clock := newClock()
	s := start(t, fleet.Options{Now: clock.Now}, fleet.ServerOptions{})
	base := s.publish(t, table(1))
	a, b := s.joinReady(t, "a", base), s.joinReady(t, "b", base)
	next := s.next(t, table(2))
	outcome := s.preparing(t, next, 2, patience)
	a.wantHold(t, next)
	b.wantHold(t, next)
	a.prepared(t, next.Version)
	a.wantNothing(t, base)
	s.waitState(t, "a", "applied") // of what is desired still
	b.prepared(t, next.Version)
	wantReady(t, outcome)
	a.wantNothing(t, base)

	published := s.fleet.Publish(next)
	s.fleet.Release()
	a.wantCommit(t, published)
	b.wantCommit(t, published)
	s.waitState(t, "a", "pending")
	a.applied(t, published.Version, published.Revision)
	s.waitState(t, "a", "applied")
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, all := s.fleet.Switched(over); all {
		t.Error("all have switched before b has")
	}
	clock.Advance(30 * time.Millisecond)
	b.applied(t, published.Version, published.Revision)
	if spread, all := s.fleet.Switched(t.Context()); spread != 30*time.Millisecond || !all {
		t.Errorf("spread %s, of all: %v, want 30ms", spread, all)
	}
	a.wantNothing(t, published)
	b.wantNothing(t, published)
	if n := testutil.CollectAndCount(s.fleet, "controlplane_switch_spread_seconds"); n != 1 {
		t.Errorf("%d series of the spread", n)
	}
}

// One that comes meanwhile is waited for, one that leaves on purpose is not.
func TestWhoIsWaitedFor(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	base := s.publish(t, table(1))
	a, b := s.joinReady(t, "a", base), s.joinReady(t, "b", base)
	next := s.next(t, table(2))
	outcome := s.preparing(t, next, 2, patience)
	a.wantHold(t, next)
	b.wantHold(t, next)
	c := s.joinReady(t, "c", base)
	c.wantHold(t, next)
	for _, p := range []*player{a, c} {
		p.prepared(t, next.Version)
	}
	select {
	case err := <-outcome:
		t.Fatalf("outcome %v before b is ready", err)
	default:
	}
	b.goodbye(t)
	wantReady(t, outcome)
	published := s.fleet.Publish(next)
	s.fleet.Release()
	for _, p := range []*player{a, c} {
		p.wantCommit(t, published)
	}
	// Who comes now is sent the table.
	d := s.join(t, "d", "1", "")
	if _, chunk := d.recvTable(t); chunk.GetHold() || chunk.GetVersion() != next.Version {
		t.Errorf("a late one gets %v", chunk)
	}
}

// Whatever is in the way: the outcome names it, and nobody changes anything.
func TestNothingIsReleased(t *testing.T) {
	for _, test := range []struct {
		name     string
		expected int
		before   func(t *testing.T, s *server, c *clock, base *fleet.Table)
		during   func(t *testing.T, s *server, b *player, next *fleet.Table)
		want     []string
	}{
		{
			name: "one rejects",
			during: func(t *testing.T, _ *server, b *player, next *fleet.Table) {
				b.rejected(t, next.Version, &routetablev1.Problem{Path: "port", Message: "8000 cannot be opened"})
			},
			want: []string{"data plane b: port: 8000 cannot be opened"},
		},
		{
			name:   "one loses its stream",
			during: func(_ *testing.T, _ *server, b *player, _ *fleet.Table) { b.close() },
			want:   []string{"data plane b: has lost its stream: "},
		},
		{
			name:   "one comes back on another stream",
			during: func(t *testing.T, s *server, _ *player, _ *fleet.Table) { s.join(t, "b", "2", "") },
			want:   []string{"data plane b: cannot prepare a route table", "data plane b: has come back"},
		},
		{
			name: "one is disconnected",
			before: func(t *testing.T, s *server, _ *clock, base *fleet.Table) {
				s.joinReady(t, "gone", base).close()
				s.waitState(t, "gone", "disconnected")
			},
			want: []string{"data plane gone: is disconnected"},
		},
		{
			name: "one is of an earlier release",
			before: func(t *testing.T, s *server, _ *clock, base *fleet.Table) {
				s.joinAt(t, "old", base)
				s.waitState(t, "old", "applied")
			},
			want: []string{"data plane old: cannot prepare a route table: it is of an earlier release"},
		},
		{
			name: "fewer than expected", expected: 3,
			want: []string{"data planes: 2 are connected, at least 3 are expected"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newClock()
			s := start(t, fleet.Options{Now: c.Now}, fleet.ServerOptions{})
			base := s.publish(t, table(1))
			a, b := s.joinReady(t, "a", base), s.joinReady(t, "b", base)
			if test.before != nil {
				test.before(t, s, c, base)
			}
			next := s.next(t, table(2))
			outcome := s.preparing(t, next, test.expected, patience)
			if test.during != nil {
				a.wantHold(t, next)
				a.prepared(t, next.Version)
				b.wantHold(t, next)
				test.during(t, s, b, next)
			}
			wantReasons(t, outcome, test.want...)
			s.fleet.Release()
			if test.during != nil {
				a.wantDiscard(t, next)
			}
			// The next change finds nothing left of it.
			last := s.publish(t, table(3))
			for {
				_, chunk := a.recvTable(t)
				if chunk.GetVersion() == last.Version && !chunk.GetHold() {
					break
				}
				if chunk.GetVersion() != next.Version || !chunk.GetHold() {
					t.Fatalf("got version %s, to hold: %v", chunk.GetVersion(), chunk.GetHold())
				}
			}
			a.applied(t, last.Version, last.Revision)
			s.waitState(t, "a", "applied")
		})
	}
}

// Who runs the table already, as in a roll-out, need not say that it is ready.
func TestWhoDoesNotSayInTimeThatItIsReady(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	base := s.publish(t, table(1))
	next := s.fleet.Stage(s.next(t, table(2)), base, map[string]bool{"a": true}).Table
	s.joinReady(t, "a", next)
	s.joinReady(t, "b", base)
	wantReasons(t, s.preparing(t, next, 2, time.Millisecond), "data plane b: did not say within 1ms that it is ready")
	s.fleet.Release()
}

func TestPreparingIsGivenUp(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	base := s.publish(t, table(1))
	a := s.joinReady(t, "a", base)
	next := s.next(t, table(2))
	ctx, cancel := context.WithCancel(t.Context())
	outcome := make(chan error, 1)
	go func() { outcome <- s.fleet.Prepare(ctx, next, 0, patience) }()
	a.wantHold(t, next)
	cancel()
	if err := <-outcome; !errors.Is(err, context.Canceled) {
		t.Errorf("outcome %v", err)
	}
	s.fleet.Release()
	a.wantDiscard(t, next)
	// A word that comes too late changes nothing.
	a.prepared(t, next.Version)
	a.wantNothing(t, base)
}

// What a data plane has ready does not outlive another table on the same stream, nor the
// stream.
func TestWhatIsReadyIsAskedForAgain(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	base := s.publish(t, table(1))
	a := s.joinReady(t, "a", base)
	next := s.next(t, table(5))
	outcome := s.preparing(t, next, 0, patience)
	a.wantHold(t, next)
	a.prepared(t, next.Version)
	wantReady(t, outcome)

	between := s.publish(t, table(2))
	a.wantTable(t, between)
	a.wantHold(t, next)
	a.prepared(t, next.Version)
	a.wantNothing(t, between)
	a.close()
	s.waitState(t, "a", "disconnected")
	a = s.joinReady(t, "a", between)
	published := s.fleet.Publish(next)
	s.fleet.Release()
	for {
		m := a.recvWord(t)
		if c := m.GetChunk(); c != nil && !c.GetHold() && c.GetVersion() == published.Version {
			break // in the ordinary way
		}
		if m.GetCommit() != nil {
			t.Fatalf("got %v, and has nothing ready", m)
		}
	}
}

// A data plane that has rejected a version and has it ready later is told to switch.
func TestAVersionThatWasRejectedCanBePrepared(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	base := s.publish(t, table(1))
	a := s.joinReady(t, "a", base)
	refused := s.publish(t, table(2))
	a.recvTable(t)
	a.rejected(t, refused.Version)
	s.waitState(t, "a", "rejected")
	next := s.next(t, table(3))
	outcome := s.preparing(t, next, 0, patience)
	a.wantHold(t, next)
	a.prepared(t, next.Version)
	wantReady(t, outcome)
	published := s.fleet.Publish(next)
	s.fleet.Release()
	a.wantCommit(t, published)
}

// A data plane that has lost what it had ready by the time of the commit gets the table.
func TestACommitOfWhatIsNotReadyAnyMore(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	base := s.publish(t, table(1))
	a := s.joinReady(t, "a", base)
	next := s.next(t, table(2))
	outcome := s.preparing(t, next, 0, patience)
	a.wantHold(t, next)
	a.prepared(t, next.Version)
	wantReady(t, outcome)
	published := s.fleet.Publish(next)
	s.fleet.Release()
	a.wantCommit(t, published)
	a.send(t, &routetablev1.SubscribeRequest{Message: &routetablev1.SubscribeRequest_Resend{
		Resend: &routetablev1.Resend{Version: next.Version, Reason: "it is not prepared"},
	}})
	a.wantTable(t, published)
	a.applied(t, published.Version, published.Revision)
	if _, all := s.fleet.Switched(t.Context()); !all {
		t.Error("it has not switched")
	}
}

// A stream whose turn comes in the middle of a switch ends after it.
func TestATurnWaitsForTheSwitch(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{Turn: 5 * time.Millisecond})
	base := s.publish(t, table(1))
	next := s.next(t, table(2))
	wantReady(t, s.preparing(t, next, 0, patience)) // it goes on until Release
	a := s.open(t)
	a.skipReports = true
	a.helloReady(t, "a", base)
	a.wantHold(t, next)
	a.prepared(t, next.Version)
	for a.skipped == 0 {
		a.wantNothing(t, base)
	}
	a.wantNothing(t, base)
	published := s.fleet.Publish(next)
	s.fleet.Release()
	a.wantCommit(t, published)
	a.applied(t, published.Version, published.Revision)
	if _, all := s.fleet.Switched(t.Context()); !all {
		t.Error("it has not switched")
	}
	if err := a.recvTurn(published.Version); status.Code(err) != codes.Aborted {
		t.Errorf("end %v, want that it is to choose anew", err)
	}
}

// Who was asked to choose a control plane anew, and has chosen another one, is in
// nobody's way, and soon forgotten.
func TestWhoHasChosenAnotherControlPlane(t *testing.T) {
	clock := newClock()
	s := start(t, fleet.Options{Now: clock.Now}, fleet.ServerOptions{Turn: time.Millisecond})
	base := s.publish(t, table(1))
	a := s.join(t, "a", "1", base.Version)
	if err := a.recvTurn(base.Version); status.Code(err) != codes.Aborted {
		t.Fatalf("end %v, want that it is to choose anew", err)
	}
	s.waitState(t, "a", "disconnected")
	wantReady(t, s.preparing(t, s.next(t, table(2)), 0, patience))
	s.fleet.Release()
	s.fleet.Sweep()
	s.waitState(t, "a", "disconnected")
	clock.Advance(10 * time.Second)
	s.fleet.Sweep()
	if known := s.fleet.DataPlanes(); len(known) > 0 {
		t.Errorf("known is %v", known)
	}
}

// Who comes when all are ready is waited for, as long as nothing is published.
func TestANewcomerAfterAllWereReady(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	base := s.publish(t, table(1))
	a := s.joinReady(t, "a", base)
	next := s.next(t, table(2))
	if s.fleet.Prepared(next) {
		t.Error("it is prepared, before anybody was asked")
	}
	outcome := s.preparing(t, next, 1, patience)
	a.wantHold(t, next)
	a.prepared(t, next.Version)
	wantReady(t, outcome)
	if !s.fleet.Prepared(next) {
		t.Error("it is not prepared, although all are ready")
	}
	b := s.joinReady(t, "b", base)
	b.wantHold(t, next)
	if s.fleet.Prepared(next) {
		t.Error("it is prepared, although one is not ready")
	}
	outcome = s.preparing(t, next, 1, patience)
	b.prepared(t, next.Version)
	wantReady(t, outcome)
	if !s.fleet.Prepared(next) {
		t.Error("it is not prepared, although all are ready")
	}
	s.fleet.Release()
	if s.fleet.Prepared(next) {
		t.Error("it is prepared after the end")
	}
}
