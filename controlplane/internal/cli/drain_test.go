package cli_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"reverseproxy/controlplane/internal/fleet/fleettest"
	"reverseproxy/controlplane/internal/status"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// The backend that the tests drain, and the one beside it.
const assets, otherAssets = "http://localhost:5003/static?v=1", "http://localhost:5004/static"

// weights returns the weights of a pool in the table that a data plane was sent last.
func weights(d *fleettest.DataPlane, endpoint string) (list []uint32) {
	tables := d.Tables()
	for _, e := range tables[len(tables)-1].GetEndpoints() {
		if e.GetName() == endpoint {
			for _, b := range e.GetPool() {
				list = append(list, b.GetWeight())
			}
		}
	}
	return list
}

func wantWeights(t *testing.T, d *fleettest.DataPlane, endpoint string, want ...uint32) {
	t.Helper()
	got := weights(d, endpoint)
	if len(got) != len(want) {
		t.Fatalf("weights of %s: %v, want %v", endpoint, got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("weights of %s: %v, want %v", endpoint, got, want)
		}
	}
}

func TestDrain(t *testing.T) {
	c := start(t, good, "--state-dir", t.TempDir())
	a := fleettest.Start(t, c.server, "a", nil, fleettest.Apply)
	b := fleettest.Start(t, c.server, "b", nil, fleettest.Apply)
	c.waitKnown(t, 2)
	c.cli(t, "drain", "--list").want(t, 0, "No backend is drained", "")

	b.SetInFlight(assets, 2)
	c.cli(t, "drain", "backend", assets).want(t, 0, assets+": gets no new requests (revision 2, version ", "")
	r := c.inVain(t, assets+": was drained already", "1 of 2 data planes may have requests in flight to "+assets+"; it stays drained",
		"drain", "backend", assets, "--wait")
	golden(t, "drain-timeout.txt", masked(c, r.stdout))
	wantWeights(t, a, "assets", 0, 3)
	r = c.inVain(t, `"inFlight": 2`, "", "drain", "backend", assets, "--wait", "-o", "json")
	r.want(t, 1, `"changed": false`, "")
	golden(t, "status-draining.txt", masked(c, c.cli(t, "status").stdout))

	done := make(chan result, 1)
	go func() { done <- c.cli(t, "drain", "backend", assets, "--wait", "--expect", "2") }()
	b.SetInFlight(assets, 0)
	r = <-done
	r.want(t, 0, "no request is in flight to it on 2 data planes", "")
	if r.stderr != "" {
		t.Errorf("stderr: %s", r.stderr)
	}
	c.waitStatus(t, "the status has it", func(s status.Status) bool {
		return len(s.Draining) == 1 && s.Draining[0].URL == assets && len(s.Draining[0].Unsettled) == 0 && s.Draining[0].InFile
	})

	t.Run("one vanished", func(t *testing.T) {
		gone := fleettest.Start(t, c.server, "gone", nil, fleettest.Apply)
		c.waitKnown(t, 3)
		gone.Stop()
		c.inVain(t, "vanished: it has no connection", "1 of 3 data planes", "drain", "backend", assets, "--wait")
	})
	t.Run("what cannot be drained", func(t *testing.T) {
		c.cli(t, "drain", "backend", "http://localhost:5003/statik").want(t, 1, "",
			"no pool has the backend http://localhost:5003/statik, written exactly so; did you mean http://localhost:5003/static")
		c.cli(t, "undrain", "backend", otherAssets).want(t, 1, "", otherAssets+" is not drained; did you mean "+assets)
		c.cli(t, "drain", "backend", otherAssets).want(t, 1, "", "no backend would be left for endpoint assets, whose requests would be answered 503")
		wantWeights(t, a, "assets", 0, 3)
		c.cli(t, "explain", "/assets/a").want(t, 0, assets+"  0 (drained) ", "")
		c.cli(t, "drain", "backend", otherAssets, "--force", "-o", "json").want(t, 0, `"drained": true`, "")
		c.cli(t, "explain", "/assets/a").want(t, 0, "503 Service Unavailable: every backend is drained", "")
		c.cli(t, "explain", "/assets/a", "-o", "json").want(t, 0, `"draining": true`, "")
		c.waitStatus(t, "a has it", func(s status.Status) bool { return s.DataPlanes[0].Version == s.Version })
		wantWeights(t, a, "assets", 0, 0)
		c.cli(t, "undrain", "backend", otherAssets).want(t, 0, "gets requests again", "")
	})
	t.Run("another file", func(t *testing.T) {
		// It stays drained when the file changes, when it leaves the file, and when it
		// comes back.
		c.cli(t, "apply", write(t, "next.yaml", strings.Replace(good, "port: 8000", "port: 8001", 1))).want(t, 0, "revision", "")
		c.waitStatus(t, "a has it", func(s status.Status) bool { return s.DataPlanes[0].Version == s.Version })
		wantWeights(t, a, "assets", 0, 3)
		c.cli(t, "apply", write(t, "without.yaml", strings.Replace(good, `"`+assets+`", `, "", 1))).want(t, 0, "revision", "")
		c.waitStatus(t, "a has it", func(s status.Status) bool {
			return s.DataPlanes[0].Version == s.Version && len(s.Draining) == 1 && !s.Draining[0].InFile
		})
		wantWeights(t, a, "assets", 3)
		c.cli(t, "status").want(t, 0, "it is not in the file", "")
		c.cli(t, "drain", "--list").want(t, 0, "draining: "+assets, "")
		c.cli(t, "drain", "--list", "-o", "json").want(t, 0, `"inFile": false`, "")
		c.cli(t, "apply", write(t, "good.yaml", good)).want(t, 0, "revision", "")
		c.waitStatus(t, "a has it", func(s status.Status) bool { return s.DataPlanes[0].Version == s.Version })
		wantWeights(t, a, "assets", 0, 3)
	})
	t.Run("undrain", func(t *testing.T) {
		c.cli(t, "undrain", "backend", assets, "--wait", "--timeout", "500ms").want(t, 1, "gets requests again", "did not apply version") // gone
		c.waitStatus(t, "a has it", func(s status.Status) bool { return s.DataPlanes[0].Version == s.Version })
		wantWeights(t, a, "assets", 1, 3)
		if s := c.status(t); len(s.Draining) != 0 {
			t.Errorf("still draining: %+v", s.Draining)
		}
	})
}

func TestDrainsOutliveTheControlPlane(t *testing.T) {
	dir := t.TempDir()
	first := start(t, good, "--state-dir", dir)
	first.cli(t, "drain", "backend", assets).want(t, 0, "gets no new requests", "")
	first.stop()
	second := start(t, good, "--state-dir", dir)
	a := fleettest.Start(t, second.server, "a", nil, fleettest.Apply)
	second.cli(t, "drain", "backend", assets, "--wait").want(t, 0, "was drained already", "")
	wantWeights(t, a, "assets", 0, 3)
	second.cli(t, "undrain", "backend", assets, "--wait").want(t, 0, "applied by 1 data plane", "")
	second.stop()
	third := start(t, good, "--state-dir", dir)
	if s := third.status(t); len(s.Draining) != 0 {
		t.Errorf("draining: %+v", s.Draining)
	}
	third.stop()

	if err := os.WriteFile(filepath.Join(dir, "drained.json"), []byte(`{"backends": [`), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--state-dir", dir, third.file).
		want(t, 1, "", "drained.json, which keeps the drained backends, is damaged")
}

func TestDrainWithoutAStateDirWarns(t *testing.T) {
	c := start(t, good)
	c.cli(t, "drain", "backend", assets).want(t, 0, "gets no new requests", "warning: the control plane has no --state-dir")
	c.cli(t, "undrain", "backend", assets).want(t, 0, "gets requests again", "")
}

func TestAWaitForADrainThatIsTakenBackFails(t *testing.T) {
	c := start(t, good, "--state-dir", t.TempDir())
	a := fleettest.Start(t, c.server, "a", nil, fleettest.Apply)
	c.waitKnown(t, 1)
	a.SetInFlight(assets, 1)
	done := make(chan result, 1)
	go func() { done <- c.cli(t, "drain", "backend", assets, "--wait") }()
	c.waitStatus(t, "it is drained", func(s status.Status) bool { return len(s.Draining) == 1 && s.Draining[0].InFlight == 1 })
	c.cli(t, "undrain", "backend", assets).want(t, 0, "gets requests again", "")
	// Nobody else need have done it.
	(<-done).want(t, 1, "", "is not drained any more: it was taken back, or the control plane was started again without --state-dir")
}

// reports of two data planes about the assets.
func tell(a, b *fleettest.DataPlane) {
	a.Tell(
		&routetablev1.BackendReport{Endpoint: "assets", Url: assets, Requests: 100, Failures: 3, InFlight: 2, RequestsPerSecond: 12.34, FailuresPerSecond: 0.5},
		&routetablev1.BackendReport{Endpoint: "assets", Url: otherAssets, Requests: 7, RequestsPerSecond: 1},
		&routetablev1.BackendReport{Endpoint: "shop", Url: "http://localhost:5000/index-proxied", RequestsPerSecond: 1000},
	)
	b.Tell(
		&routetablev1.BackendReport{Endpoint: "assets", Url: assets, Requests: 50, RequestsPerSecond: 100},
		&routetablev1.BackendReport{Endpoint: "assets", Url: otherAssets, Trouble: "connection refused"},
	)
}

func TestStatusOfAnEndpoint(t *testing.T) {
	c := start(t, good, "--state-dir", t.TempDir())
	a := fleettest.Start(t, c.server, "a", nil, fleettest.Apply)
	b := fleettest.Start(t, c.server, "b", nil, fleettest.Apply)
	c.waitKnown(t, 2)
	golden(t, "top-nothing.txt", c.cli(t, "top").stdout)
	tell(a, b)
	c.cli(t, "drain", "backend", assets).want(t, 0, "", "")
	c.waitKnown(t, 2)
	golden(t, "status-endpoint.txt", c.cli(t, "status", "endpoint", "assets").stdout)
	golden(t, "top.txt", c.cli(t, "top", "--once", "-n", "2").stdout)
	c.cli(t, "status").want(t, 0, "unhealthy somewhere: 1 backend", "")
	c.cli(t, "status", "endpoint", "asset").want(t, 1, "", "no endpoint is named asset; did you mean assets")

	var one status.Endpoint
	r := c.cli(t, "status", "endpoint", "assets", "-o", "json")
	if err := json.Unmarshal([]byte(r.stdout), &one); err != nil || len(one.Backends) != 2 || one.Backends[1].Healthy != 1 {
		t.Errorf("%v\n%s", err, r.stdout)
	}
	for what, document := range map[string]string{
		"the flag": c.cli(t, "status", "-o", "json", "--endpoints").stdout, "all over HTTP": c.get(t, "/api/v1/status?endpoints=all"),
	} {
		var s status.Status
		if err := json.Unmarshal([]byte(document), &s); err != nil || len(s.Endpoints) != 2 || s.Endpoints[0].Name != "assets" || s.UnhealthyBackends != 1 {
			t.Errorf("%s: %v\n%s", what, err, document)
		}
	}
	var s status.Status
	if err := json.Unmarshal([]byte(c.get(t, "/api/v1/status?endpoint=shop")), &s); err != nil || len(s.Endpoints) != 1 || s.Endpoints[0].Name != "shop" {
		t.Errorf("one over HTTP: %v %+v", err, s.Endpoints)
	}
	if strings.Contains(c.get(t, "/api/v1/status"), `"endpoints"`) {
		t.Error("endpoints that nobody asked for")
	}
}
