package cli_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"reverseproxy/controlplane/internal/fleet/fleettest"
	"reverseproxy/controlplane/internal/status"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// without returns good without one of its endpoints.
func without(name string) string {
	start := strings.Index(good, "- name: "+name)
	end := strings.Index(good[start+1:], "- name: ")
	if end < 0 {
		return good[:start]
	}
	return good[:start] + good[start+1+end:]
}

// planned is what a test reads of a plan.
type planned struct {
	Version, PlannedVersion string
	Changes                 []struct{ Kind, Subject string }
	Impacts                 []struct {
		LosesTraffic bool
		Text         string
	}
	Basis struct {
		DataPlanes        int
		RequestsPerSecond float64
		Unknown           float64
	}
	LosesTraffic bool
	Drop         string
	Problems     []string
}

func (c *controlPlane) plan(t *testing.T, config string) (p planned, r result) {
	t.Helper()
	r = c.cli(t, "plan", "-o", "json", write(t, "next.yaml", config))
	if err := json.Unmarshal([]byte(r.stdout), &p); err != nil {
		t.Fatalf("%v\n%+v", err, r)
	}
	return p, r
}

// busy starts two data planes that see requests to shop, and waits until that is known.
func busy(t *testing.T, c *controlPlane) {
	t.Helper()
	for _, id := range []string{"a", "b"} {
		fleettest.Start(t, c.server, id, nil, fleettest.Apply).See(&routetablev1.Heartbeat{
			Traffic:   &routetablev1.Traffic{Requests: 1000},
			Endpoints: []*routetablev1.EndpointReport{{Endpoint: "shop", Requests: 1000, NewRequests: 300, RequestsPerSecond: 60}},
			Samples:   []*routetablev1.Sample{{Method: "GET", Host: "shop.example.com", Path: "/index", Endpoint: "shop", Weight: 600}},
		})
	}
	c.waitKnown(t, 2)
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		if p, _ := c.plan(t, good); p.Basis.DataPlanes == 2 && p.Basis.RequestsPerSecond > 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the traffic is not known")
		}
	}
}

// maskedPlan replaces what differs from run to run.
func maskedPlan(s string) string {
	s = regexp.MustCompile(`(?m)^\S*/`).ReplaceAllString(s, "")
	s = regexp.MustCompile(`[\d.]+ req/s at the moment`).ReplaceAllString(s, "N req/s at the moment")
	return regexp.MustCompile(`of \d+ requests? sampled in the last \S+:`).ReplaceAllString(s, "of N requests sampled in the last N s:")
}

func TestPlan(t *testing.T) {
	c := start(t, good)
	t.Run("nothing has been seen", func(t *testing.T) {
		c.cli(t, "plan", write(t, "next.yaml", without("shop"))).want(t, 0, "no traffic has been seen", "")
	})
	busy(t, c)
	for _, test := range []struct {
		name, config string
		code         int
	}{
		{"same", "# the same\n" + good, 0},
		{"idle", without("beta"), 0},
		{"live", without("shop"), 3},
		{"taken", strings.NewReplacer("name: shop", "name: store", ":5000", ":5009").Replace(good), 0},
		{"drop", "port: 8000\nendpoints: []\n", 3},
		{"long", without("beta") + manyEndpoints(100), 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := c.status(t)
			r := c.cli(t, "plan", write(t, "next.yaml", test.config))
			r.want(t, test.code, "", "")
			golden(t, "plan-"+test.name+".txt", maskedPlan(r.stdout))
			if after := c.status(t); after.Version != before.Version || after.Revision != before.Revision {
				t.Errorf("something has changed: %+v", after)
			}
		})
	}
	t.Run("json", func(t *testing.T) {
		p, r := c.plan(t, without("shop"))
		if r.code != 3 || !p.LosesTraffic || p.Basis.Unknown != 1 || len(p.Changes) != 1 || p.Changes[0].Kind != "removed" || len(p.Impacts) != 2 || p.Drop != "" {
			t.Errorf("%+v", r)
		}
	})
	t.Run("problems", func(t *testing.T) {
		c.cli(t, "plan", write(t, "bad.yaml", "port: x\nendpoints: []\n")).want(t, 1, "", "bad.yaml:1:7: ")
		c.cli(t, "plan", write(t, "failing.yaml", failing)).want(t, 1, "", "failing.yaml"+failure)
		if p, r := c.plan(t, "port: x\nendpoints: []\n"); r.code != 1 || len(p.Problems) != 1 {
			t.Errorf("%+v", r)
		}
	})
	t.Run("standard input", func(t *testing.T) {
		runWith(t, t.Context(), without("shop"), "plan", "--server", c.server, "-").want(t, 3, "stdin: revision 1", "")
	})
	t.Run("a drained backend", func(t *testing.T) {
		c.cli(t, "drain", "backend", "http://localhost:5004/static").want(t, 0, "", "")
		c.cli(t, "plan", write(t, "next.yaml", good)).want(t, 0, "nothing would change", "")
		c.cli(t, "undrain", "backend", "http://localhost:5004/static").want(t, 0, "", "")
	})
}

// A change in the middle of a roll-out is no accident, but may be no intention either.
func TestPlanInTheMiddleOfARollOut(t *testing.T) {
	steps := "rollout: {steps: [1, 100%], bake: 1h}\n"
	c := start(t, steps+good)
	for _, id := range []string{"a", "b"} {
		fleettest.Start(t, c.server, id, nil, fleettest.Apply)
	}
	c.waitKnown(t, 2)
	next := write(t, "next.yaml", steps+without("beta"))
	c.cli(t, "apply", next).want(t, 0, "revision 2", "")
	c.cli(t, "plan", next).want(t, 0, "nothing would change", "")
	const said = "takes the place of revision 2, whose roll-out is going on"
	c.cli(t, "plan", write(t, "other.yaml", steps+without("assets"))).want(t, 0, said, "")
	c.cli(t, "rollout", "abort").want(t, 0, "", "")
	c.waitStatus(t, "the roll-out is over", func(status.Status) bool {
		return !strings.Contains(c.cli(t, "plan", write(t, "other.yaml", steps+without("assets"))).stdout, said)
	})
}

// manyEndpoints are n more.
func manyEndpoints(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "- from: /more/%02d\n  pool: [http://localhost:5000]\n", i)
	}
	return b.String()
}

// Scripts that apply without a terminal see the plan, and are not asked.
func TestApplyPrintsThePlan(t *testing.T) {
	c := start(t, good)
	busy(t, c)
	next := write(t, "next.yaml", without("shop"))
	r := c.cli(t, "apply", next, "--wait")
	r.want(t, 0, "! removes endpoint shop: 120 req/s on 2 data planes, which would get 404", "")
	r.want(t, 0, "applied by 2 data planes", "")
	plan, outcome, _ := strings.Cut(r.stdout, "any more.\n\n")
	if !strings.HasPrefix(outcome, next+": revision 2 (version ") || strings.Contains(plan, "revision 2") {
		t.Errorf("the plan does not come first:\n%s", r.stdout)
	}
	c.cli(t, "apply", "-o", "json", write(t, "good.yaml", good)).want(t, 0, "{\n  \"version\": ", "")
}
