package cli_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"reverseproxy/controlplane/internal/fleet/fleettest"
	"reverseproxy/controlplane/internal/status"
)

// staged is a configuration that is rolled out in steps.
func staged(port int, bake string) string {
	return fmt.Sprintf("rollout: {steps: [1, 50%%, 100%%], bake: %s, onNoTraffic: continue}\n", bake) +
		strings.Replace(good, "8000", fmt.Sprint(port), 1)
}

// shown is an output about a roll-out without what differs from run to run.
func shown(text string) string {
	text = regexp.MustCompile(`version [0-9a-f]+`).ReplaceAllString(text, "version VERSION")
	text = regexp.MustCompile(`\S+ left`).ReplaceAllString(text, "TIME left")
	text = regexp.MustCompile(`by \S+: lunch`).ReplaceAllString(text, "by AUTHOR: lunch")
	return regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d`).ReplaceAllString(text, "TIME    ")
}

// waitPhase waits until the roll-out is in a phase.
func (c *controlPlane) waitPhase(t *testing.T, phase string) status.Rollout {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		var r status.Rollout
		if err := json.Unmarshal([]byte(c.cli(t, "rollout", "status", "-o", "json").stdout), &r); err != nil {
			t.Fatal(err)
		}
		if r.Phase == phase {
			return r
		}
		if time.Now().After(deadline) {
			t.Fatalf("not in %s: the roll-out is %s\n%+v\n%s", patience, phase, r, c.log)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestRollout(t *testing.T) {
	c := start(t, good, "--state-dir", t.TempDir())
	c.cli(t, "rollout", "status").want(t, 0, "There has been no roll-out.", "")
	c.cli(t, "rollout", "status", "-o", "json").want(t, 0, "null", "")
	c.cli(t, "rollout", "pause").want(t, 1, "", "there is no roll-out going on")
	for i := range 4 {
		fleettest.Start(t, c.server, fmt.Sprint("edge-", i), nil, fleettest.Apply)
	}
	c.waitKnown(t, 4)

	next := write(t, "next.yaml", staged(8001, "1h"))
	c.cli(t, "apply", next).want(t, 0, "revision 2 (version ", "")
	c.waitPhase(t, "baking")
	golden(t, "rollout-baking.txt", shown(c.cli(t, "rollout", "status").stdout))
	c.cli(t, "status").want(t, 0, "roll-out from revision 1: step 1 of 3, baking, ", "")
	c.cli(t, "apply", next).want(t, 0, "was being rolled out already", "")
	c.inVain(t, "", ": the roll-out is in step 1 of 3, baking", "apply", next, "--wait")
	c.cli(t, "rollout", "pause", "--reason", "lunch").want(t, 0, "revision 2: paused by ", "")
	golden(t, "rollout-paused.txt", shown(c.cli(t, "rollout", "status").stdout))
	c.cli(t, "rollout", "resume", "--revision", "3").want(t, 1, "", "the roll-out that is going on is that of revision 2, not of 3")
	c.cli(t, "rollout", "resume").want(t, 0, "revision 2: resumed", "")
	c.cli(t, "rollout", "promote", "-o", "json").want(t, 0, `"step": 3`, "")
	c.waitStatus(t, "everybody has it", func(s status.Status) bool {
		return s.Rollout != nil && s.Rollout.Applied == 4 && s.Rollout.Phase == "baking"
	})
	metrics := c.get(t, "/metrics")
	for _, line := range []string{
		`controlplane_rollout_phase{phase="baking"} 1`, `controlplane_rollout_phase{phase="paused"} 0`,
		"controlplane_rollout_step 3", "controlplane_rollout_steps 3", "controlplane_rollout_chosen_dataplanes 4",
		`controlplane_rollouts_total{result="aborted"} 0`,
	} {
		if !strings.Contains(metrics, line+"\n") {
			t.Errorf("metrics without %s", line)
		}
	}
	c.cli(t, "rollout", "abort", "--reason", "no").want(t, 0, "aborted in step 3 of 3: asked for by ", "")
	c.cli(t, "rollout", "status", "--watch").want(t, 0, "aborted: asked for by ", "")
	s := c.waitStatus(t, "everybody has what was before", func(s status.Status) bool {
		return s.Revision == 3 && len(s.DataPlanes) == 4 && s.DataPlanes[0].State == "applied"
	})
	if s.Config.LastLoad != "error" || !strings.Contains(s.Config.Error, "parked") || s.Rollout.Phase != "aborted" {
		t.Errorf("status %+v", s)
	}
	if !strings.Contains(c.get(t, "/metrics"), `controlplane_rollouts_total{result="aborted"} 1`) {
		t.Error("the abort is not counted")
	}
	c.cli(t, "status", "--wait").want(t, 1, "", "parked until it changes, or is applied again")
}

func TestApplyWaitsForTheEndOfARollout(t *testing.T) {
	c := start(t, good, "--state-dir", t.TempDir())
	for i := range 3 {
		fleettest.Start(t, c.server, fmt.Sprint("edge-", i), nil, rejectPort(8002))
	}
	c.waitKnown(t, 3)
	c.cli(t, "apply", write(t, "next.yaml", staged(8001, "100ms")), "--wait").want(t, 0, "applied by 3 data planes", "")
	c.waitPhase(t, "done")
	golden(t, "rollout-done.txt", shown(c.cli(t, "rollout", "status").stdout))
	r := c.cli(t, "apply", write(t, "next.yaml", staged(8002, "100ms")), "--wait")
	r.want(t, 1, "", "the roll-out of revision 3 was aborted in step 1 of 3: 1 data plane rejected it: edge-")
	r = c.cli(t, "apply", write(t, "next.yaml", staged(8002, "100ms")), "--wait", "-o", "json")
	r.want(t, 1, `"rollingOut": true`, "")
	// At once, and in other steps.
	c.cli(t, "apply", write(t, "next.yaml", staged(8003, "1h")), "--steps", "100%", "--wait").want(t, 0, "applied by 3 data planes", "")
	c.cli(t, "apply", write(t, "next.yaml", staged(8004, "1h")), "--steps", "2,100%").want(t, 0, "is rolled out in steps", "")
	if r := c.waitPhase(t, "baking"); len(r.Chosen) != 2 {
		t.Errorf("%v are chosen, want 2", r.Chosen)
	}
	// rollback is for everybody.
	c.cli(t, "rollback", "1", "--wait").want(t, 0, "applied by 3 data planes", "")
	if r := c.waitPhase(t, "superseded"); r.Reason != "superseded by revision 9" {
		t.Errorf("reason %s", r.Reason)
	}
}

// A comment that comes in the middle does not make it another content.
func TestAnotherTextOfTheSameIsParkedToo(t *testing.T) {
	c := start(t, good, "--state-dir", t.TempDir())
	fleettest.Start(t, c.server, "edge-1", nil, fleettest.Apply)
	c.waitKnown(t, 1)
	c.cli(t, "apply", write(t, "next.yaml", staged(8001, "1h"))).want(t, 0, "is rolled out in steps", "")
	c.waitPhase(t, "baking")
	c.cli(t, "apply", write(t, "next.yaml", "# again\n"+staged(8001, "1h"))).want(t, 0, "was being rolled out already", "")
	c.cli(t, "rollout", "abort").want(t, 0, "aborted", "")
	c.reload <- struct{}{}
	c.cli(t, "status", "--wait").want(t, 1, "", "parked")
	if r := c.waitPhase(t, "aborted"); r.Revision != 2 {
		t.Errorf("revision %d is rolled out", r.Revision)
	}
}

// What is in force is the same for whoever asks on the command line and over HTTP.
func TestRolloutIsTheSameOverHTTP(t *testing.T) {
	c := start(t, good, "--state-dir", t.TempDir())
	fleettest.Start(t, c.server, "edge-1", nil, fleettest.Apply)
	c.waitKnown(t, 1)
	c.cli(t, "apply", write(t, "next.yaml", staged(8001, "1h"))).want(t, 0, "is rolled out in steps", "")
	c.waitPhase(t, "baking")
	var fromCLI, fromHTTP map[string]any
	r := c.cli(t, "rollout", "status", "-o", "json")
	if err := errors.Join(json.Unmarshal([]byte(r.stdout), &fromCLI), json.Unmarshal([]byte(c.get(t, "/api/v1/status")), &fromHTTP)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(any(fromCLI), fromHTTP["rollout"]); diff != "" {
		t.Errorf("rollout status -o json (-) and GET /api/v1/status (+):\n%s", diff)
	}
}

func TestRolloutUsage(t *testing.T) {
	file := write(t, "x.yaml", good)
	for _, test := range []struct{ args, want string }{
		{"rollout", "one of status, pause, resume, promote, abort"},
		{"rollout status pause", "one of status, pause, resume, promote, abort"},
		{"rollout stop", `rollout has no "stop"`},
		{"rollout pause --watch", "--watch goes with rollout status only"},
		{"rollout status --reason x", "do not go with rollout status"},
		{"apply " + file + " --steps 1,25%", "--steps: the last step must be 100%"},
		{"apply " + file + " --steps 1,x,100%", `--steps: found "x", expected a number of data planes`},
	} {
		run(t, strings.Fields(test.args)...).want(t, 2, "", test.want)
	}
}

// Settings of the roll-out are no part of the route table.
func TestRolloutSettingsChangeNoVersion(t *testing.T) {
	c := start(t, good)
	before := c.status(t).Version
	replace(t, c.file, "rollout: {steps: [1, 100%]}\n"+good)
	c.cli(t, "status").want(t, 0, "revision 1, ", "")
	if after := c.status(t); after.Version != before {
		t.Errorf("version %s, before %s", after.Version, before)
	}
}
