package cli_test

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"reverseproxy/controlplane/internal/fleet/fleettest"
	"reverseproxy/controlplane/internal/status"
)

const (
	// better has another weight and another endpoint than good, and slower another time.
	better = `port: 8000
endpoints:
- name: shop
  from: /index
  host: shop.example.com
  methods: [GET]
  pool: ["http://localhost:5000/index-proxied", "http://localhost:5002/index-proxied"]
- name: assets
  from: /assets/*
  pool: ["http://localhost:5003/static?v=1", {url: "http://localhost:5004/static", weight: 5}]
- name: gamma
  from: /index
  headers: {x-gamma: "1"}
  pool: ["http://localhost:5001"]
`
	slower = good + "defaults: {timeouts: {response: 1m}}\n"
)

// dated replaces what differs from run to run in a history.
func dated(text string) string {
	text = regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d`).ReplaceAllString(text, "2026-01-02 03:04:05")
	return regexp.MustCompile(`\b[0-9a-f]{12}\b`).ReplaceAllString(text, "0123456789ab")
}

func TestHistory(t *testing.T) {
	c := start(t, "# the first\n"+good, "--state-dir", t.TempDir())
	a := fleettest.Start(t, c.server, "a", nil, fleettest.Apply)
	c.waitKnown(t, 1)
	c.cli(t, "apply", write(t, "better.yaml", better), "--message", "two backends for the shop").want(t, 0, "revision 2", "")
	c.cli(t, "apply", write(t, "slower.yaml", slower), "-m", "slow\nbackends").want(t, 0, "revision 3", "")
	c.cli(t, "drain", "backend", assets).want(t, 0, "revision 4", "")
	r := c.cli(t, "rollback", "2", "-m", "it was better", "--wait")
	r.want(t, 0, "revision 2 is the running configuration again, as revision 5 (version ", "")
	r.want(t, 0, "applied by 1 data plane\n", "")
	wantWeights(t, a, "assets", 0, 5) // what is drained stays so
	c.cli(t, "rollback", "2").want(t, 0, "revision 2 means the same as the running configuration, revision 5", "")
	if data, err := os.ReadFile(c.file); err != nil || string(data) != better {
		t.Errorf("the file has %q, %v", data, err)
	}
	c.cli(t, "rollback", "1").want(t, 0, "as revision 6", "")
	if data, err := os.ReadFile(c.file); err != nil || string(data) != "# the first\n"+good {
		t.Errorf("the file has %q, %v", data, err)
	}

	r = c.cli(t, "history")
	golden(t, "history.txt", dated(r.stdout))
	if r.code != 0 || r.stderr != "" {
		t.Errorf("exit status %d, stderr %s", r.code, r.stderr)
	}
	if r := c.cli(t, "history", "-n", "2"); strings.Count(r.stdout, "\n") != 3 {
		t.Errorf("got\n%s", r.stdout)
	}
	var h status.History
	if err := json.Unmarshal([]byte(c.cli(t, "history", "-o", "json").stdout), &h); err != nil {
		t.Fatal(err)
	}
	if e := h.Revisions[1]; !h.Kept || len(h.Revisions) != 6 || e.Revision != 5 || e.Origin != "rollback" || e.Restores != 2 ||
		e.Author != "ann@host" || e.Message != "it was better" || e.Endpoints != 3 || e.Size != uint64(len(better)) || len(e.Version) != 64 {
		t.Errorf("got %+v", h)
	}

	if r := c.cli(t, "show", "2"); r.stdout != better || r.code != 0 {
		t.Errorf("got %q", r.stdout)
	}
	var e status.Revision
	if err := json.Unmarshal([]byte(c.cli(t, "show", "2", "-o", "json").stdout), &e); err != nil || e.Revision != 2 || e.Message != "two backends for the shop" {
		t.Errorf("got %+v, %v", e, err)
	}

	golden(t, "diff.txt", c.cli(t, "diff", "1", "2").stdout)
	golden(t, "diff-unified.txt", c.cli(t, "diff", "1", "2", "-o", "unified").stdout)
	golden(t, "diff-json.txt", c.cli(t, "diff", "1", "2", "-o", "json").stdout)
	c.cli(t, "diff", "3", "4").want(t, 0, "~ backend "+assets+" of endpoint assets: weight 1 → 0\n", "")
	c.cli(t, "diff", "6").want(t, 0, "Revisions 6 and 6 are the same.\n", "")
	c.cli(t, "diff", "4").want(t, 0, "~ endpoint shop: timeouts.response 1m0s → 30s\n", "")
	c.cli(t, "apply", write(t, "commented.yaml", good+"# a comment\n")).want(t, 0, "revision 6 (version ", "")
	c.cli(t, "show", "6").want(t, 0, "# a comment\n", "")

	for _, command := range []string{"show", "rollback", "diff"} {
		c.cli(t, command, "7").want(t, 1, "", "there is no revision 7; the history has 1 to 6")
	}
	c.cli(t, "rollback", "1", "-m", "\x1b").want(t, 1, "", "has characters that cannot be shown")
}

func TestARefusedRollback(t *testing.T) {
	many := "port: 8000\nendpoints:\n"
	for i := range 12 {
		many += "- {from: /" + string(rune('a'+i)) + ", pool: [\"http://h:1\"]}\n"
	}
	c := start(t, good)
	c.cli(t, "apply", write(t, "many.yaml", many), "--force").want(t, 0, "revision 2", "")
	c.cli(t, "rollback", "1").want(t, 1, "", "revision 1:1:1: file: the update drops 12 of 12 endpoints")
	c.cli(t, "rollback", "1").want(t, 1, "", "the text of revision 1 was refused; nothing has changed")
	c.cli(t, "rollback", "1", "-o", "json").want(t, 1, `"problems": [`, "")
	c.cli(t, "rollback", "1", "--force", "-o", "json", "--wait", "--expect", "0").want(t, 0, `"applied": true`, "")
	c.cli(t, "history").want(t, 0, "rollback to 1", "warning: the control plane has no --state-dir: its history is gone when it is started again")
}

func TestUsageOfTheHistory(t *testing.T) {
	for _, test := range []struct{ args, stderr string }{
		{"history 3", "show prints one revision"},
		{"history -n -1", "must not be negative"},
		{"history -o xml", "neither table nor json"},
		{"show", "one REV is expected"},
		{"show latest", `"latest" is not the number of a revision`},
		{"show 0", `"0" is not the number of a revision`},
		{"diff", "A [B]"},
		{"diff 1 2 3", "A [B]"},
		{"diff 1 -o xml", "neither words nor unified nor json"},
		{"rollback", "one REV is expected"},
		{"rollback 1 --timeout 1s", "go together with --wait"},
	} {
		run(t, strings.Fields(test.args)...).want(t, 2, "", test.stderr)
	}
}
