package plan_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"reverseproxy/controlplane/internal/plan"
	"reverseproxy/controlplane/internal/traffic"
	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// chance makes tables and requests out of few words, so that they meet.
type chance struct{ *rand.Rand }

func (c chance) pick(list ...string) string { return list[c.IntN(len(list))] }

func (c chance) endpoint(name string) *routetablev1.Endpoint {
	e := &routetablev1.Endpoint{Name: name, Pool: []*routetablev1.Backend{{Url: "http://" + name, Weight: uint32(min(1, c.IntN(5)))}}}
	if c.IntN(2) == 0 {
		e.Path = &routetablev1.Endpoint_Prefix{Prefix: c.pick("", "/a", "/a/b")}
	} else {
		e.Path = &routetablev1.Endpoint_Exact{Exact: c.pick("/a", "/a/b", "/")}
	}
	if c.IntN(3) == 0 {
		e.Hosts = []string{c.pick("h.example", "*.example")}
	}
	if c.IntN(3) == 0 {
		e.Methods = []string{c.pick("GET", "PUT")}
	}
	for _, header := range []string{"x-a", "x-b"} {
		if c.IntN(3) == 0 {
			e.Headers = append(e.Headers, &routetablev1.HeaderMatch{Name: header, Value: c.pick("1", "2")})
		}
	}
	return e
}

// tables returns one, and another that has some of it changed.
func (c chance) tables() (running, planned *routetablev1.RouteTable) {
	running, planned = &routetablev1.RouteTable{Port: 1}, &routetablev1.RouteTable{Port: 1}
	for i := range 1 + c.IntN(8) {
		e := c.endpoint(fmt.Sprintf("e%d", i))
		running.Endpoints = append(running.Endpoints, e)
		switch c.IntN(4) {
		case 0:
			planned.Endpoints = append(planned.Endpoints, c.endpoint(e.GetName()))
		case 1:
		default:
			planned.Endpoints = append(planned.Endpoints, e)
		}
	}
	for _, t := range []*routetablev1.RouteTable{running, planned} {
		for ties, _ := routetable.Ties(t.Endpoints); len(ties) > 0; ties, _ = routetable.Ties(t.Endpoints) {
			t.Endpoints = slices.Delete(t.Endpoints, ties[0].Second, ties[0].Second+1)
		}
	}
	return running, planned
}

// What a plan says of a sample, which has no header fields, is true of the request that
// had them, or is that nothing is known.
func TestWhatIsSaidOfASampleIsTrueOfItsRequest(t *testing.T) {
	said := map[string]int{}
	for seed := range uint64(20_000) {
		c := chance{rand.New(rand.NewPCG(seed, 0))}
		running, planned := c.tables()
		header := map[string]string{"x-a": c.pick("", "1", "2"), "x-b": c.pick("", "1", "2")}
		r := &routetable.Request{
			Method: c.pick("GET", "PUT"), Host: c.pick("h.example", "i.example", "other"), Path: c.pick("/a", "/a/b", "/a/b/c", "/"),
			Header: func(name string) []string { return []string{header[name]} },
		}
		now, _, _ := routetable.Match(running, r)
		then, _, _ := routetable.Match(planned, r)
		got := plan.Make(plan.Input{Running: running, Planned: planned, Since: accepted, Samples: traffic.Samples{List: []traffic.Sample{
			{Method: r.Method, Host: r.Host, Path: r.Path, Endpoint: now.GetName(), Weight: 1, At: accepted},
		}}}).GetBasis()
		answered := func(e *routetablev1.Endpoint) bool { return e != nil && e.GetPool()[0].GetWeight() > 0 }
		truth := "same"
		switch {
		case answered(now) && !answered(then):
			truth = "lost"
		case answered(then) && now.GetName() != then.GetName():
			truth = "moved"
		}
		is := "same"
		switch {
		case got.GetUnknown() == 1:
			is = "unknown"
		case got.GetLost() == 1:
			is = "lost"
		case got.GetMoved() == 1:
			is = "moved"
		}
		said[is]++
		if is != truth && is != "unknown" {
			t.Fatalf("seed %d: %s is said of %s %s%s %v, which is %s: %v, then %v\nrunning %v\nplanned %v",
				seed, is, r.Method, r.Host, r.Path, header, truth, now.GetName(), then.GetName(), running, planned)
		}
	}
	t.Log(said)
	if said["lost"] < 500 || said["moved"] < 500 || said["same"] < 500 || said["unknown"] < 100 || said["unknown"] > 5000 {
		t.Errorf("said: %v", said)
	}
}
