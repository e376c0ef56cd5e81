package reconcile_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"reverseproxy/controlplane/internal/fleet/fleettest"
	"reverseproxy/controlplane/internal/rollout"
	fleetv1 "reverseproxy/proto/fleet/v1"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// switchPool is what all data planes are to change to at once; slowPort is in it.
const (
	slowPort   = "5009"
	switchPool = "5001+" + slowPort
)

// slow is a data plane that takes its time with a table that has slowPort.
type slow struct {
	begun, goOn chan struct{}
	end         sync.Once
}

// slowDataPlane connects one.
func slowDataPlane(t *testing.T, c *controlPlane) *slow {
	t.Helper()
	d := &slow{begun: make(chan struct{}, 100), goOn: make(chan struct{})}
	fleettest.Start(t, c.listen(t), "edge", nil, func(rt *routetablev1.RouteTable) []string {
		if strings.Contains(rt.String(), slowPort) {
			d.begun <- struct{}{}
			<-d.goOn
		}
		return nil
	})
	t.Cleanup(d.finish)
	eventually(t, "the data plane is there", func() bool { return len(c.fleet.DataPlanes()) == 1 })
	return d
}

// finish lets it go on.
func (d *slow) finish() { d.end.Do(func() { close(d.goOn) }) }

// wait waits until it has begun.
func (d *slow) wait(t *testing.T) {
	t.Helper()
	select {
	case <-d.begun:
	case <-time.After(patience):
		t.Fatal("nothing is prepared")
	}
}

// outcome of an apply.
type outcome struct {
	changed bool
	err     error
}

// atomic begins to apply a text to all data planes at once.
func (c *controlPlane) atomic(t *testing.T, text string, timeout time.Duration) <-chan outcome {
	t.Helper()
	ended := make(chan outcome, 1)
	go func() {
		_, changed, _, err := c.loader.Apply(t.Context(), &fleetv1.ApplyRequest{
			Name: "test", Config: []byte(text), Atomic: true, PrepareTimeout: durationpb.New(timeout),
		})
		ended <- outcome{changed, err}
	}()
	return ended
}

// get waits for the outcome.
func get(t *testing.T, ended <-chan outcome) outcome {
	t.Helper()
	select {
	case o := <-ended:
		return o
	case <-time.After(patience):
		t.Fatal("apply does not end")
		return outcome{}
	}
}

// wantOutdated fails unless nothing has come of it.
func (c *controlPlane) wantOutdated(t *testing.T, ended <-chan outcome) {
	t.Helper()
	if o := get(t, ended); o.changed || o.err == nil || !strings.Contains(o.err.Error(), "run it again") {
		t.Errorf("changed %v, %v; want an error with what to do", o.changed, o.err)
	}
	if file := string(read(t, c.file)); strings.Contains(file, slowPort) {
		t.Errorf("the file has\n%s", file)
	}
	for _, e := range c.loader.History().List() {
		if kept, err := c.loader.History().Text(e.Revision); err != nil || strings.Contains(string(kept), slowPort) {
			t.Errorf("revision %d in the history is\n%s, %v", e.Revision, kept, err)
		}
	}
}

// What is said during a preparation is done at once, and ends it when it changes what is
// to run.
func TestChangesDuringAPreparation(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*testing.T, *controlPlane)
		want   string
	}{
		{"abort", func(t *testing.T, c *controlPlane) {
			if err := c.abort(t); err != nil {
				t.Fatal(err)
			}
		}, oldPool},
		{"drain", func(t *testing.T, c *controlPlane) {
			if err := c.drain(t, "5001"); err != nil {
				t.Fatal(err)
			}
		}, newPool},
		{"apply", func(t *testing.T, c *controlPlane) { c.apply(t, text("5004")) }, "5004"},
		{"file", func(t *testing.T, c *controlPlane) {
			c.save(t, text("5004"))
			c.follow(t, "the edit is loaded", func() bool { return pools(c.fleet.Desired()) == "5004" })
		}, "5004"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := rollingOut(t)
			d := slowDataPlane(t, c)
			ended := c.atomic(t, text("5001", slowPort), patience*2)
			d.wait(t)
			test.change(t, c)
			c.wantOutdated(t, ended)
			d.finish()
			if got := pools(c.fleet.Desired()); got != test.want {
				t.Errorf("%s is desired, want %s", got, test.want)
			}
			c.follow(t, "the data plane goes on", func() bool {
				dps := c.fleet.DataPlanes()
				return len(dps) == 1 && dps[0].GetState() == fleetv1.DataPlaneState_DATA_PLANE_STATE_APPLIED
			})
		})
	}
}

// An undrained backend that only the new text has changes nothing that runs, but what is
// prepared.
func TestBackendTakenBackDuringAPreparation(t *testing.T) {
	c := newControlPlane(t, text("5001", slowPort))
	if err := c.drain(t, slowPort); err != nil {
		t.Fatal(err)
	}
	c.apply(t, text("5001"))
	d := slowDataPlane(t, c)
	before := c.fleet.Desired().Revision
	ended := c.atomic(t, text("5001", slowPort), patience*2)
	d.wait(t)
	if _, err := c.loader.Drain(t.Context(), "http://localhost:"+slowPort, true, false, ""); err != nil {
		t.Fatal(err)
	}
	if o := get(t, ended); o.changed || o.err == nil {
		t.Errorf("changed %v, %v", o.changed, o.err)
	}
	if after := c.fleet.Desired().Revision; after != before {
		t.Errorf("revision %d has become %d", before, after)
	}
}

// A roll-out goes on during a preparation, and is superseded at its end.
func TestRolloutDuringAPreparation(t *testing.T) {
	t.Run("paused", func(t *testing.T) {
		c := rollingOut(t)
		d := slowDataPlane(t, c)
		ended := c.atomic(t, text("5001", slowPort), patience*2)
		d.wait(t)
		r, err := c.loader.Steer(t.Context(), &fleetv1.SteerRolloutRequest{Action: fleetv1.RolloutAction_ROLLOUT_ACTION_PAUSE})
		if err != nil || r.GetPhase() != fleetv1.RolloutPhase_ROLLOUT_PHASE_PAUSED {
			t.Fatalf("%v, %v", r, err)
		}
		d.finish()
		if o := get(t, ended); !o.changed || o.err != nil {
			t.Fatalf("changed %v, %v", o.changed, o.err)
		}
		if got := pools(c.fleet.Desired()); got != switchPool || c.kept(t) != rollout.Superseded {
			t.Errorf("%s is desired, and the roll-out %s", got, c.kept(t))
		}
	})
	t.Run("judged", func(t *testing.T) {
		c := newControlPlane(t, text("5001", "5002"))
		d := slowDataPlane(t, c)
		c.apply(t, "rollout: {steps: [1, 100%], bake: 100ms, minRequests: 1}\n"+text("5001", "5003"))
		ended := c.atomic(t, text("5001", slowPort), patience*2)
		d.wait(t)
		c.follow(t, "the roll-out is done", func() bool {
			return c.loader.Rollout().GetPhase() == fleetv1.RolloutPhase_ROLLOUT_PHASE_DONE
		})
		d.finish()
		if o := get(t, ended); !o.changed || o.err != nil {
			t.Fatalf("changed %v, %v", o.changed, o.err)
		}
		if got := pools(c.fleet.Desired()); got != switchPool {
			t.Errorf("%s is desired", got)
		}
	})
}

// A revision that is continued from a data plane meanwhile is the one before that of the
// change.
func TestRevisionContinuedDuringAPreparation(t *testing.T) {
	c := newControlPlane(t, text("5001"))
	d := slowDataPlane(t, c)
	ended := c.atomic(t, text("5001", slowPort), patience*2)
	d.wait(t)
	state := &routetablev1.State{Version: c.fleet.Desired().Version, Revision: 40}
	fleettest.Start(t, c.listen(t), "newcomer", state, fleettest.Apply)
	c.follow(t, "the history has it", func() bool { return c.loader.History().Newest().Revision == 40 })
	d.finish()
	if o := get(t, ended); !o.changed || o.err != nil {
		t.Fatalf("changed %v, %v", o.changed, o.err)
	}
	if got := c.loader.History().Newest().Revision; got != 41 || c.fleet.Desired().Revision != 41 {
		t.Errorf("revision %d is desired, %d in the history, want 41", c.fleet.Desired().Revision, got)
	}
}

func TestOnePreparationAtATime(t *testing.T) {
	c := newControlPlane(t, text("5001"))
	d := slowDataPlane(t, c)
	first := c.atomic(t, text("5001", slowPort), patience*2)
	d.wait(t)
	if o := get(t, c.atomic(t, text("5002"), time.Millisecond)); o.err == nil || !strings.Contains(o.err.Error(), "another configuration is being prepared") {
		t.Errorf("got %v", o.err)
	}
	second := c.atomic(t, text("5003"), patience*2)
	d.finish()
	for _, ended := range []<-chan outcome{first, second} {
		if o := get(t, ended); !o.changed || o.err != nil {
			t.Errorf("changed %v, %v", o.changed, o.err)
		}
	}
	if got := pools(c.fleet.Desired()); got != "5003" {
		t.Errorf("%s is desired, want that of the second", got)
	}
}
