package traffic

import (
	"fmt"
	"math"
	"testing"
	"time"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

// Weights add up to the number of requests of each kind, whatever the weights of the
// data planes are. The error of the sum is 1 % (one standard deviation), so that twenty
// times as much is not chance.
func TestSamplesStandForAllRequests(t *testing.T) {
	w := newWorld()
	busy, quiet := w.Session("busy"), w.Session("quiet")
	want := map[string]float64{}
	for range 30 {
		w.later(10)
		give := func(x *Session, endpoint string, weight float64) {
			h := &routetablev1.Heartbeat{Traffic: answered(1)}
			for i := range 100 {
				h.Samples = append(h.Samples, &routetablev1.Sample{Method: "GET", Path: fmt.Sprint("/", i), Endpoint: endpoint, Weight: weight})
				want[endpoint] += weight
			}
			x.Observe(h, w.now)
		}
		for range 10 {
			give(busy, "home", 900)
			give(busy, "shop", 100)
		}
		give(quiet, "home", 1)
	}
	all := w.Samples()
	if n := len(all.List); n > spans*spanSamples || n < 20*spanSamples {
		t.Errorf("%d samples", n)
	}
	got := map[string]float64{}
	for _, s := range all.List {
		got[s.Endpoint] += s.Weight
	}
	for endpoint, n := range want {
		if math.Abs(got[endpoint]-n) > 0.4*n {
			t.Errorf("%s: the weights are %.0f, of %.0f requests", endpoint, got[endpoint], n)
		}
	}
}

// The samples of a data plane that has left are kept until they are old.
func TestSamplesGrowOld(t *testing.T) {
	w := newWorld()
	give := func(id, path string) {
		x := w.Session(id)
		h := &routetablev1.Heartbeat{Traffic: answered(1)}
		x.Observe(h, w.now) // of requests before nobody knows whether there were samples
		h.Traffic = answered(2)
		if path != "" {
			h.Samples = []*routetablev1.Sample{{Method: "GET", Host: "h", Path: path, Weight: 3}}
		}
		x.Observe(h, w.now)
		x.Close()
	}
	wantPaths := func(over time.Duration, planes, without int, paths ...string) {
		t.Helper()
		all := w.Samples()
		var got []string
		for _, s := range all.List {
			got = append(got, s.Path)
		}
		if fmt.Sprint(got) != fmt.Sprint(paths) || all.Over != over || all.DataPlanes != planes || all.WithoutSamples != without {
			t.Errorf("%v over %s of %d data planes, %d without; want %v over %s of %d, %d without",
				got, all.Over, all.DataPlanes, all.WithoutSamples, paths, over, planes, without)
		}
	}
	give("a", "/a")
	wantPaths(0, 1, 0, "/a")
	w.later(100)
	give("b", "/b")
	give("silent", "")
	w.hear(w.Session("idle"), "v1", answered(7))
	w.Sweep()
	wantPaths(100*time.Second, 4, 1, "/b", "/a")
	w.later(250)
	wantPaths(250*time.Second, 3, 1, "/b")
	w.later(100)
	wantPaths(0, 0, 0)
	give("c", "/c") // takes the place of /a or /b in time
	wantPaths(0, 1, 0, "/c")
}
