package reconcile_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"

	"reverseproxy/controlplane/internal/fleet"
	"reverseproxy/controlplane/internal/fleet/fleettest"
	"reverseproxy/controlplane/internal/history"
	"reverseproxy/controlplane/internal/reconcile"
	"reverseproxy/controlplane/internal/rollout"
	"reverseproxy/controlplane/internal/source"
	fleetv1 "reverseproxy/proto/fleet/v1"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

const patience = 20 * time.Second

// controlPlane is what a restart finds on the disk, and what runs.
type controlPlane struct {
	file, state, rollout, history string
	// logging is called before each line of the log.
	logging func()

	fleet  *fleet.Fleet
	loader *reconcile.Loader
}

// newControlPlane returns one that was started with a text.
func newControlPlane(t *testing.T, text string) *controlPlane {
	t.Helper()
	dir := t.TempDir()
	c := &controlPlane{
		file: filepath.Join(dir, "config.yaml"), state: filepath.Join(dir, "state"), history: filepath.Join(dir, "history"),
	}
	c.rollout = filepath.Join(c.state, reconcile.RolloutFileName)
	if err := os.Mkdir(c.state, 0o755); err != nil {
		t.Fatal(err)
	}
	c.save(t, text)
	c.start(t)
	return c
}

// start begins a run; one before it is taken to have been killed.
func (c *controlPlane) start(t *testing.T) {
	t.Helper()
	log := slog.New(slog.NewTextHandler(c, nil))
	store, err := history.Open(c.history, log)
	if err != nil {
		t.Fatal(err)
	}
	drains := filepath.Join(c.state, reconcile.DrainsFileName)
	drained, err := reconcile.ReadDrains(drains)
	if err != nil {
		t.Fatal(err)
	}
	last, err := reconcile.ReadRollout(c.rollout, time.Second, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	c.fleet = fleet.New(fleet.Options{})
	c.loader = reconcile.New(source.New(c.file), c.fleet, reconcile.Options{
		Interval: time.Millisecond, History: store, DrainsFile: drains, Drained: drained,
		RolloutFile: c.rollout, Rollout: last, Grace: time.Second, Log: log,
	})
	if err := c.loader.Start(); err != nil {
		t.Fatal(err)
	}
}

// Write implements io.Writer for the log.
func (c *controlPlane) Write(p []byte) (int, error) {
	if c.logging != nil {
		c.logging()
	}
	return len(p), nil
}

func (c *controlPlane) save(t *testing.T, text string) {
	t.Helper()
	if err := source.Replace(c.file, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

// follow has the control plane follow the file until something is so.
func (c *controlPlane) follow(t *testing.T, what string, so func() bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.loader.Run(ctx, nil)
	}()
	defer func() { cancel(); <-ended }()
	eventually(t, what, so)
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func (c *controlPlane) drain(t *testing.T, backend string) error {
	t.Helper()
	_, err := c.loader.Drain(t.Context(), "http://localhost:"+backend, false, false, "")
	return err
}

func (c *controlPlane) abort(t *testing.T) error {
	t.Helper()
	_, err := c.loader.Steer(t.Context(), &fleetv1.SteerRolloutRequest{Action: fleetv1.RolloutAction_ROLLOUT_ACTION_ABORT})
	return err
}

// newest returns the text of the newest entry of the history.
func (c *controlPlane) newest(t *testing.T) string {
	t.Helper()
	text, err := c.loader.History().Text(c.loader.History().Newest().Revision)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// kept returns the phase of the roll-out that a restart would find.
func (c *controlPlane) kept(t *testing.T) rollout.Phase {
	t.Helper()
	r, err := reconcile.ReadRollout(c.rollout, time.Second, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return r.Phase
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Error(err)
	}
}

func (c *controlPlane) apply(t *testing.T, text string, steps ...string) {
	t.Helper()
	_, _, problems, err := c.loader.Apply(t.Context(), &fleetv1.ApplyRequest{Name: "test", Config: []byte(text), Steps: steps})
	if err != nil || len(problems) > 0 {
		t.Fatalf("apply: %v, %v", err, problems)
	}
}

// text has an endpoint with these backends.
func text(backends ...string) string {
	var pool []string
	for _, b := range backends {
		pool = append(pool, fmt.Sprintf("%q", "http://localhost:"+b))
	}
	return "port: 8000\nendpoints:\n- {from: /, pool: [" + strings.Join(pool, ", ") + "]}\n"
}

// staged fails the test unless there is a roll-out, from the base to the candidate.
func (c *controlPlane) staged(t *testing.T, when string, base, candidate string) {
	t.Helper()
	g := c.fleet.Goal()
	if g.Base == nil {
		t.Fatalf("%s, every data plane gets %s", when, pools(g.Table))
	}
	if got := pools(g.Base) + " to " + pools(g.Table); got != base+" to "+candidate {
		t.Fatalf("%s, the roll-out is from %s; want from %s to %s", when, got, base, candidate)
	}
}

// pools lists the ports of all backends.
func pools(t *fleet.Table) string {
	var list []string
	for _, e := range t.Proto.GetEndpoints() {
		for _, b := range e.GetPool() {
			list = append(list, strings.TrimPrefix(b.GetUrl(), "http://localhost:"))
		}
	}
	return strings.Join(list, "+")
}

const (
	oldPool = "5001+5002"
	newPool = "5001+5003"
)

// rollingOut returns a control plane in the middle of a roll-out from oldPool to newPool, whose
// texts say nothing about steps.
func rollingOut(t *testing.T) *controlPlane {
	t.Helper()
	c := newControlPlane(t, text("5001", "5002"))
	c.apply(t, text("5001", "5003"), "1", "100%")
	c.staged(t, "to begin with", oldPool, newPool)
	return c
}

// edit changes the file to a text that means the same.
func (c *controlPlane) edit(t *testing.T) {
	t.Helper()
	edited := string(read(t, c.file)) + "# a comment\n"
	c.save(t, edited)
	c.follow(t, "the comment is kept", func() bool { return c.newest(t) == edited })
}

func TestEditThatMeansTheSameInARollout(t *testing.T) {
	c := rollingOut(t)
	c.edit(t)
	c.start(t)
	c.staged(t, "after an edit of a comment and a restart", oldPool, newPool)
}

func TestEditThatMeansTheSameIsTakenBackToo(t *testing.T) {
	c := rollingOut(t)
	c.edit(t)
	if err := c.abort(t); err != nil {
		t.Fatal(err)
	}
	c.start(t)
	if got := pools(c.fleet.Desired()); got != oldPool {
		t.Fatalf("after an edit of a comment, an abort and a restart, %s is desired, want %s", got, oldPool)
	}
}

func TestKilledBetweenDrainAndRollout(t *testing.T) {
	c := rollingOut(t)
	before := read(t, c.rollout)
	if err := c.drain(t, "5001"); err != nil {
		t.Fatal(err)
	}
	write(t, c.rollout, before)
	c.start(t)
	c.staged(t, "after a drain and a restart", oldPool, newPool)
}

// A revision that was continued from a data plane is in the history before it is in the
// file of the roll-out, or after.
func TestKilledBetweenRenumberings(t *testing.T) {
	c := rollingOut(t)
	if err := c.loader.History().Renumber(9); err != nil {
		t.Fatal(err)
	}
	c.start(t)
	c.staged(t, "after a restart with another number in the history", oldPool, newPool)

	r, err := reconcile.ReadRollout(c.rollout, time.Second, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	r.Renumber(19, r.BaseRevision, r.Version, r.BaseVersion)
	if err := r.Abort(time.Now(), "a test"); err != nil {
		t.Fatal(err)
	}
	data, err := r.Keep()
	if err != nil {
		t.Fatal(err)
	}
	write(t, c.rollout, data)
	c.start(t)
	if got := pools(c.fleet.Desired()); got != oldPool {
		t.Fatalf("after an abort under another number and a restart, %s is desired, want %s", got, oldPool)
	}
}

// Each entry says which backends were drained when it was accepted.
func TestDrainInARolloutIsInBothEntries(t *testing.T) {
	c := rollingOut(t)
	if err := c.drain(t, "5001"); err != nil {
		t.Fatal(err)
	}
	for _, e := range c.loader.History().List()[:2] {
		if got := strings.Join(e.Drained, " "); got != "http://localhost:5001" || e.Origin != fleetv1.Origin_ORIGIN_DRAIN {
			t.Errorf("revision %d has %q drained, by %s", e.Revision, got, e.Origin)
		}
	}
}

func TestDrainInARolloutThatCannotBeKept(t *testing.T) {
	for _, test := range []struct{ name, file string }{
		{"the base in the history", "history/0000000000000003.prepared"},
		{"the base in the history, in the end", "history/0000000000000003.revision"},
		{"the change in the history", "history/0000000000000004.prepared"},
		{"the backends", "state/" + reconcile.DrainsFileName},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := rollingOut(t)
			inTheWay := filepath.Join(filepath.Dir(c.file), test.file)
			if err := os.Mkdir(inTheWay, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := c.drain(t, "5001"); err == nil {
				t.Fatal("drained, although that cannot be kept")
			}
			if err := os.Remove(inTheWay); err != nil {
				t.Fatal(err)
			}
			if drained, err := reconcile.ReadDrains(filepath.Join(c.state, reconcile.DrainsFileName)); err != nil || len(drained) > 0 {
				t.Fatalf("a restart would find drained: %q, %v", drained, err)
			}
			if got := c.loader.History().Newest().Revision; got != 2 {
				t.Fatalf("revision %d is the newest in the history, want 2", got)
			}
			c.start(t)
			c.staged(t, "after a drain that was refused and a restart", oldPool, newPool)
			if err := c.drain(t, "5001"); err != nil {
				t.Fatal(err)
			}
			if got, want := c.newest(t), text("5001", "5003"); got != want {
				t.Fatalf("the history has as the newest text\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// The history knows of an abort that the file of the roll-out does not.
func TestKilledAfterAnAbortThatOnlyTheHistoryKeeps(t *testing.T) {
	nothing := func(*testing.T, *controlPlane) {}
	for _, test := range []struct {
		name          string
		before, after func(*testing.T, *controlPlane)
		want          string
		ok            bool
	}{
		{"and nothing else", nothing, nothing, oldPool, false},
		{"after an edit of a comment", func(t *testing.T, c *controlPlane) { c.edit(t) }, nothing, oldPool, false},
		{"and a drain", nothing, func(t *testing.T, c *controlPlane) {
			if err := c.drain(t, "5001"); err != nil {
				t.Fatal(err)
			}
		}, oldPool, false},
		{"and the same for everybody", nothing, func(t *testing.T, c *controlPlane) { c.apply(t, text("5001", "5003")) }, newPool, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := rollingOut(t)
			going := read(t, c.rollout)
			if err := os.Remove(c.rollout); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(c.rollout, 0o755); err != nil {
				t.Fatal(err)
			}
			test.before(t, c)
			if err := c.abort(t); err != nil {
				t.Fatal(err)
			}
			test.after(t, c)
			if err := os.Remove(c.rollout); err != nil {
				t.Fatal(err)
			}
			write(t, c.rollout, going)
			for range 2 {
				c.start(t)
				s := c.loader.Status()
				if got := pools(c.fleet.Desired()); c.fleet.Goal().Base != nil || got != test.want || s.GetConfig().GetOk() != test.ok {
					t.Fatalf("after a restart, %s is desired, want %s, for everybody; %v", got, test.want, s.GetConfig())
				}
				if got := c.kept(t); got != rollout.Aborted {
					t.Fatalf("the roll-out is kept as %s", got)
				}
			}
		})
	}
}

func TestAbortThatCannotBeKeptIsKeptLater(t *testing.T) {
	c := rollingOut(t)
	rename(t, c.state, c.state+".away")
	rename(t, c.history, c.history+".away")
	if err := c.abort(t); err == nil || !strings.Contains(err.Error(), "would go on") {
		t.Fatalf("got %v, want an error with what a restart would do", err)
	}
	if got := pools(c.fleet.Desired()); got != oldPool {
		t.Fatalf("%s is desired, want %s", got, oldPool)
	}
	rename(t, c.state+".away", c.state)
	rename(t, c.history+".away", c.history)
	c.follow(t, "the abort is kept", func() bool { return c.kept(t) == rollout.Aborted && c.newest(t) == text("5001", "5002") })
}

func TestKilledWhenParkedContentIsAppliedAgain(t *testing.T) {
	c := rollingOut(t)
	if err := c.abort(t); err != nil {
		t.Fatal(err)
	}
	aborted := read(t, c.rollout)
	c.apply(t, text("5001", "5003"))
	write(t, c.rollout, aborted)
	c.start(t)
	if s := c.loader.Status(); !s.GetConfig().GetOk() || pools(c.fleet.Desired()) != newPool {
		t.Fatalf("after a restart, %s is desired, want %s without an error: %s", pools(c.fleet.Desired()), newPool, s.GetConfig().GetError())
	}
}

func TestKilledBetweenRolloutAndFile(t *testing.T) {
	c := rollingOut(t)
	if err := c.abort(t); err != nil {
		t.Fatal(err)
	}
	c.start(t)
	var begun []byte
	c.logging = func() {
		if begun == nil { // it begins or goes on
			begun = read(t, c.rollout)
		}
	}
	c.apply(t, text("5001", "5004"), "1", "100%")
	c.logging = nil
	write(t, c.rollout, begun)
	newest := c.loader.History().Newest().Revision
	if err := os.Remove(filepath.Join(c.history, fmt.Sprintf("%016d.revision", newest))); err != nil {
		t.Fatal(err)
	}
	c.save(t, text("5001", "5003"))
	for range 2 {
		c.start(t)
		if s := c.loader.Status(); s.GetConfig().GetOk() || pools(c.fleet.Desired()) != oldPool {
			t.Fatalf("after a restart, %s is desired, want %s: what was taken back is in the file", pools(c.fleet.Desired()), oldPool)
		}
	}
	c.save(t, text("5001", "5004"))
	c.follow(t, "other content is tried", func() bool { return pools(c.fleet.Desired()) == "5001+5004" })
	c.save(t, text("5001", "5003"))
	c.follow(t, "what was parked is tried again", func() bool { return pools(c.fleet.Desired()) == newPool })
}

// listen serves data planes at the address that it returns.
func (c *controlPlane) listen(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(fleet.GRPCOptions()...)
	routetablev1.RegisterRouteTableServiceServer(server, fleet.NewServer(c.fleet, fleet.ServerOptions{}))
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return listener.Addr().String()
}

func TestEndThatCannotBeKept(t *testing.T) {
	c := newControlPlane(t, text("5001", "5002"))
	fleettest.Start(t, c.listen(t), "edge", nil, func(rt *routetablev1.RouteTable) []string {
		if strings.Contains(rt.String(), "5003") {
			rename(t, c.state, c.state+".away") // from its first step on, nothing is kept
		}
		return nil
	})

	c.apply(t, "rollout: {steps: [1, 100%], bake: 100ms, minRequests: 1}\n"+text("5001", "5003"))
	c.follow(t, "it is done", func() bool { return c.loader.Rollout().GetPhase() == fleetv1.RolloutPhase_ROLLOUT_PHASE_DONE })
	c.wantDone(t)
	rename(t, c.state+".away", c.state)
	c.apply(t, text("5001", "5004"), "1", "100%")
	c.staged(t, "after a roll-out whose end was not kept", newPool, "5001+5004")
	c.wantDone(t)
}

// wantDone fails unless the history and the metric say, once, that revision 2 was rolled out.
func (c *controlPlane) wantDone(t *testing.T) {
	t.Helper()
	e, _, err := c.loader.History().Get(2)
	if err != nil || e.Outcome != "rolled out in 2 steps" {
		t.Errorf("the outcome is %q, %v", e.Outcome, err)
	}
	want := `
		# HELP controlplane_rollouts_total Roll-outs that are over, by result: done, aborted or superseded.
		# TYPE controlplane_rollouts_total counter
		controlplane_rollouts_total{result="aborted"} 0
		controlplane_rollouts_total{result="done"} 1
		controlplane_rollouts_total{result="superseded"} 0
	`
	if err := testutil.CollectAndCompare(c.loader, strings.NewReader(want), "controlplane_rollouts_total"); err != nil {
		t.Error(err)
	}
}

// twins starts two data planes with one id, and waits until both are shown.
func (c *controlPlane) twins(t *testing.T, server string, older, newer fleettest.Decide) {
	t.Helper()
	shown := func() int {
		n := 0
		for _, d := range c.fleet.DataPlanes() {
			if d.GetId() == "twin" && d.GetVersion() == c.fleet.Desired().Version {
				n++
			}
		}
		return n
	}
	fleettest.Start(t, server, "twin", nil, older)
	eventually(t, "one runs what is there", func() bool { return shown() == 1 })
	fleettest.Start(t, server, "twin", nil, newer)
	eventually(t, "both run it", func() bool {
		c.fleet.Ask(false) // one that says nothing would be the other's past
		return shown() == 2
	})
}

// Of two data planes with one id, 50% is the one or the other.
func TestAStepCountsIDs(t *testing.T) {
	c := newControlPlane(t, text("5001", "5002"))
	server := c.listen(t)
	c.twins(t, server, fleettest.Apply, fleettest.Apply)
	fleettest.Start(t, server, "single", nil, fleettest.Apply)
	eventually(t, "all are there", func() bool { return len(c.fleet.DataPlanes()) == 3 })

	c.apply(t, text("5001", "5003"), "50%", "100%")
	c.follow(t, "the first step is watched", func() bool {
		return c.loader.Rollout().GetPhase() == fleetv1.RolloutPhase_ROLLOUT_PHASE_BAKING
	})
	if r := c.loader.Rollout(); r.GetDataPlanes() != 2 || len(r.GetChosen()) != 1 || r.GetApplied() != 1 {
		t.Errorf("%d data planes, %v chosen, %d have applied it, want 2, one of them, and 1", r.GetDataPlanes(), r.GetChosen(), r.GetApplied())
	}
}

// The newer one applies the change, the older one does not.
func TestOneOfTwoWithAnIDRejects(t *testing.T) {
	c := newControlPlane(t, text("5001", "5002"))
	c.twins(t, c.listen(t), func(rt *routetablev1.RouteTable) []string {
		if strings.Contains(rt.String(), "5003") {
			return []string{"not here"}
		}
		return nil
	}, fleettest.Apply)
	c.apply(t, text("5001", "5003"), "1", "100%")
	c.follow(t, "it is taken back", func() bool {
		return c.loader.Rollout().GetPhase() == fleetv1.RolloutPhase_ROLLOUT_PHASE_ABORTED
	})
	if got, want := c.loader.Rollout().GetReason(), "1 data plane rejected it: twin: not here"; got != want {
		t.Errorf("taken back because of %q, want %q", got, want)
	}
}

// Who comes in the last step gets the table of the change and never that of the base, also
// while both change because a backend is drained.
func TestNobodyIsSentTheBaseInTheLastStep(t *testing.T) {
	c := newControlPlane(t, text("5001", "5002"))
	server := c.listen(t)
	runs := func(id string) {
		t.Helper()
		eventually(t, id+" runs what is there", func() bool {
			version := c.fleet.Desired().Version
			return slices.ContainsFunc(c.fleet.DataPlanes(), func(d *fleetv1.DataPlane) bool {
				return d.GetId() == id && d.GetVersion() == version
			})
		})
	}
	for _, id := range []string{"one", "two"} {
		fleettest.Start(t, server, id, nil, fleettest.Apply)
		runs(id)
	}
	c.apply(t, text("5001", "5003"), "1", "100%")
	_, err := c.loader.Steer(t.Context(), &fleetv1.SteerRolloutRequest{Action: fleetv1.RolloutAction_ROLLOUT_ACTION_PROMOTE})
	if err != nil {
		t.Fatal(err)
	}
	c.follow(t, "it is the last step", func() bool {
		return c.fleet.Goal().Base == nil && c.loader.Rollout().GetPhase() == fleetv1.RolloutPhase_ROLLOUT_PHASE_BAKING
	})
	late := fleettest.Start(t, server, "late", nil, fleettest.Apply) // the roll-out has not seen it yet
	runs("late")
	for i := range 50 {
		if _, err := c.loader.Drain(t.Context(), "http://localhost:5001", i%2 == 1, false, ""); err != nil {
			t.Fatal(err)
		}
		runs("late")
	}
	for i, rt := range late.Tables() {
		if strings.Contains(rt.String(), "5002") {
			t.Fatalf("table %d of %d is that of the base", i+1, len(late.Tables()))
		}
	}
}

func TestEditWhileTheHistoryCannotBeWritten(t *testing.T) {
	c := newControlPlane(t, text("5001"))
	inTheWay := filepath.Join(c.history, "0000000000000002.prepared")
	if err := os.Mkdir(inTheWay, 0o755); err != nil {
		t.Fatal(err)
	}
	c.save(t, text("5002"))
	c.follow(t, "the edit is loaded", func() bool { return pools(c.fleet.Desired()) == "5002" })
	edited := text("5002") + "# a comment\n"
	c.save(t, edited)
	c.follow(t, "the file is read", func() bool { return c.loader.CatchUp(t.Context(), time.Second) })
	if got := c.newest(t); got != text("5001") {
		t.Fatalf("the text of revision 1 has become\n%s", got)
	}
	if err := os.Remove(inTheWay); err != nil {
		t.Fatal(err)
	}
	c.follow(t, "the edit is kept", func() bool { return c.newest(t) == edited })
}

func TestBaseOfARolloutStaysInTheHistory(t *testing.T) {
	c := rollingOut(t)
	for i := range 101 {
		c.apply(t, text("5001", fmt.Sprint(6000+i)), "1", "100%")
	}
	c.start(t)
	c.staged(t, "after many changes and a restart", oldPool, "5001+6100")
}

// What is continued from a data plane has to be a number that the history accepts.
func TestRevisionOutOfBoundsIsNotContinued(t *testing.T) {
	c := newControlPlane(t, text("5001"))
	state := &routetablev1.State{Version: "another", Revision: 1 << 53}
	fleettest.Start(t, c.listen(t), "edge", state, fleettest.Apply)
	c.follow(t, "the data plane is known", func() bool { return len(c.fleet.DataPlanes()) == 1 })
	c.apply(t, text("5002"))
	before := c.fleet.Desired().Revision
	c.start(t)
	if after := c.fleet.Desired().Revision; after != before {
		t.Fatalf("revision %d is %d after a restart", before, after)
	}
}
