package fleet_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"reverseproxy/controlplane/internal/fleet"
	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// gather returns all series of the fleet by name and labels; of a histogram its
// count.
func gather(t *testing.T, f *fleet.Fleet) map[string]float64 {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(f)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+strconv.Quote(l.GetValue()))
			}
			name := family.GetName()
			if len(labels) > 0 {
				name += "{" + strings.Join(labels, ",") + "}"
			}
			values[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return values
}

func TestMetricsAreCleanAndTellTheState(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	want := s.publish(t, table(1))
	p := s.join(t, "a", "1", "")
	p.recvTable(t)
	p.applied(t, want.Version, 1)
	s.waitState(t, "a", "applied")

	problems, err := testutil.CollectAndLint(s.fleet)
	if err != nil || len(problems) > 0 {
		t.Errorf("lint: %v %v", err, problems)
	}
	got := gather(t, s.fleet)
	for name, want := range map[string]float64{
		`controlplane_dataplanes{state="applied"}`:                              1,
		`controlplane_dataplanes{state="pending"}`:                              0,
		`controlplane_dataplanes{state="rejected"}`:                             0,
		`controlplane_dataplanes{state="stale"}`:                                0,
		`controlplane_dataplanes{state="disconnected"}`:                         0,
		`controlplane_config_info{revision="1",version="` + want.Version + `"}`: 1,
		`controlplane_drained_backends`:                                         0,
		`controlplane_pushes_total{result="applied"}`:                           1,
		`controlplane_pushes_total{result="rejected"}`:                          0,
		`controlplane_pushes_total{result="abandoned"}`:                         0,
		`controlplane_pushes_total{result="failed"}`:                            0,
		`controlplane_convergence_seconds`:                                      1,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s = %v (there: %t), want %v", name, v, ok, want)
		}
	}
}

func TestPublishChangesTheGoal(t *testing.T) {
	f := fleet.New(fleet.Options{})
	publish(t, f, table(1), time.Now())
	if next := publish(t, f, table(2), time.Now()); f.Desired() != next || next.Revision != 2 {
		t.Errorf("got revision %d", f.Desired().Revision)
	}
}

// Revisions may be continued from a data plane while a table is being made.
func TestRevisionsOnlyGrow(t *testing.T) {
	f := fleet.New(fleet.Options{})
	late, err := fleet.NewTable(table(1), routetable.Version(table(1)), 3, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	early, err := fleet.NewTable(table(2), routetable.Version(table(2)), 9, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	f.Publish(early)
	if got := f.Publish(late); got.Revision != 10 || f.Desired() != got {
		t.Errorf("published as revision %d, want 10", got.Revision)
	}
}

func TestRevisionsContinueThoseOfTheControlPlaneBefore(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	want := s.publish(t, table(1))
	other := s.join(t, "other", "1", want.Version)
	if m := other.recv(t); m.GetCurrent().GetRevision() != 1 {
		t.Fatalf("got %v", m)
	}
	p := s.open(t)
	p.hello(t, &routetablev1.Hello{Id: "a", SessionId: "1", State: &routetablev1.State{Version: want.Version, Revision: 41}})
	for _, p := range []*player{p, other} {
		if m := p.recv(t); m.GetCurrent().GetRevision() != 41 {
			t.Errorf("got %v, want revision 41", m)
		}
	}
	if next := s.publish(t, table(2)); next.Revision != 42 {
		t.Errorf("the next change has revision %d, want 42", next.Revision)
	}

	desired := s.fleet.Desired().Version
	for i, test := range []struct {
		name string
		says *routetablev1.State
		want uint64
	}{
		{"another version under a lower revision", &routetablev1.State{Version: want.Version, Revision: 41}, 42},
		{"another version under a higher revision came before", &routetablev1.State{Version: want.Version, Revision: 100}, 101},
		{"another version under the same revision came before", &routetablev1.State{Version: want.Version, Revision: 101}, 102},
		{"nothing", &routetablev1.State{Revision: 200}, 102},
		{"nonsense", &routetablev1.State{Version: desired, Revision: 1 << 60}, 102},
	} {
		t.Run(test.name, func(t *testing.T) {
			id := "later" + strconv.Itoa(i)
			s.open(t).hello(t, &routetablev1.Hello{Id: id, SessionId: "1", State: test.says})
			eventually(t, "it is known", func() bool { return s.row(t, id) != nil })
			if got := s.fleet.Desired().Revision; got != test.want {
				t.Errorf("revision %d, want %d", got, test.want)
			}
		})
	}
}

func TestADataPlaneCannotKeepRaisingTheRevision(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	want := s.publish(t, table(1))
	p := s.join(t, "a", "1", want.Version)
	p.recv(t)
	for revision := range uint64(20) {
		p.applied(t, want.Version, 10+revision)
	}
	p.alive(t, want.Version)
	if got := s.fleet.Desired().Revision; got != 10 {
		t.Errorf("revision is %d, want 10: one adoption for a stream", got)
	}
}

func TestLateAndSilentDataPlanesAreStale(t *testing.T) {
	c := newClock()
	s := start(t, fleet.Options{Now: c.Now, ApplyDeadline: 10 * time.Second, SilenceLimit: 15 * time.Second}, fleet.ServerOptions{})
	first := s.publish(t, table(1))
	p := s.join(t, "a", "1", "")
	p.recvTable(t)
	s.waitState(t, "a", "pending")
	c.Advance(11 * time.Second)
	if d := s.waitState(t, "a", "stale"); d.GetError() != "no answer for 11s about the version it was sent" || d.GetLastContactSeconds() != 11 {
		t.Errorf("error %q, last contact %v", d.GetError(), d.GetLastContactSeconds())
	}
	p.applied(t, first.Version, 1)
	s.waitState(t, "a", "applied")
	c.Advance(16 * time.Second)
	if d := s.waitState(t, "a", "stale"); d.GetError() != "connected, but silent for 16s" {
		t.Errorf("error %q", d.GetError())
	}
	p.alive(t, first.Version)
	s.waitState(t, "a", "applied")
}

func TestADataPlaneThatLivesAndNeverAnswersLosesItsStream(t *testing.T) {
	c := newClock()
	s := start(t, fleet.Options{Now: c.Now, ApplyDeadline: 10 * time.Second}, fleet.ServerOptions{})
	s.publish(t, table(1))
	p := s.join(t, "a", "1", "")
	p.recvTable(t)
	c.Advance(29 * time.Second)
	p.alive(t, "")
	c.Advance(2 * time.Second)
	p.heartbeat(t, "", 0)
	if err := p.recvEnd(); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("got %v, want DEADLINE_EXCEEDED", err)
	}
}

func TestVanishedDataPlanesAreForgottenInTheEnd(t *testing.T) {
	c := newClock()
	s := start(t, fleet.Options{Now: c.Now, ForgetAfter: time.Minute}, fleet.ServerOptions{})
	want := s.publish(t, table(1))
	p := s.join(t, "a", "1", want.Version)
	p.recv(t)
	p.close()
	s.waitState(t, "a", "disconnected")
	c.Advance(59 * time.Second)
	s.fleet.Sweep()
	s.waitState(t, "a", "disconnected")
	c.Advance(time.Second)
	s.fleet.Sweep()
	if s.row(t, "a") != nil {
		t.Error("it is still known")
	}
}

func TestTheEndOfAnOldSessionDoesNotRemoveTheNewOne(t *testing.T) {
	c := newClock()
	s := start(t, fleet.Options{Now: c.Now}, fleet.ServerOptions{})
	want := s.publish(t, table(1))
	old := s.join(t, "a", "old", want.Version)
	old.recv(t)
	c.Advance(time.Second)
	renewed := s.join(t, "a", "new", want.Version)
	renewed.recv(t)
	// The silent old session is the new one's past: not a second data plane.
	if d := s.row(t, "a"); d.GetSessionId() != "new" || d.GetError() != "" {
		t.Errorf("got session %s error %q, want the new one without error", d.GetSessionId(), d.GetError())
	}
	old.close()
	for range 3 {
		renewed.alive(t, want.Version)
		if d := s.waitState(t, "a", "applied"); d.GetSessionId() != "new" {
			t.Errorf("got session %s, want the new one", d.GetSessionId())
		}
	}
	// And it still follows.
	next := s.publish(t, table(2))
	renewed.recvTable(t)
	renewed.applied(t, next.Version, 2)
	s.waitState(t, "a", "applied")
	// A reconnection after the disconnection takes the place of the old row.
	renewed.close()
	s.waitState(t, "a", "disconnected")
	s.join(t, "a", "third", next.Version).recv(t)
	s.waitState(t, "a", "applied")
}

func TestTwoLiveDataPlanesWithOneIDAreBothShown(t *testing.T) {
	c := newClock()
	s := start(t, fleet.Options{Now: c.Now}, fleet.ServerOptions{})
	want := s.publish(t, table(1))
	one := s.join(t, "twin", "1", want.Version)
	one.recv(t)
	c.Advance(time.Second)
	two := s.join(t, "twin", "2", want.Version)
	two.recv(t)
	c.Advance(time.Second)
	one.alive(t, want.Version)
	two.alive(t, want.Version)
	list := s.fleet.DataPlanes()
	if len(list) != 2 || list[0].GetSessionId() != "1" || list[1].GetSessionId() != "2" {
		t.Fatalf("got %v, want both sessions", list)
	}
	for _, d := range list {
		if want := "2 data planes with this id are connected: give each its own"; d.GetError() != want {
			t.Errorf("error %q, want %q", d.GetError(), want)
		}
	}
	if n := gather(t, s.fleet)[`controlplane_dataplanes{state="applied"}`]; n != 2 {
		t.Errorf("%v counted, want 2", n)
	}
	two.close()
	eventually(t, "one is left", func() bool { return len(s.fleet.DataPlanes()) == 1 })
	if d := s.row(t, "twin"); d.GetSessionId() != "1" || d.GetError() != "" {
		t.Errorf("got %v, want the first without error", d)
	}
}
