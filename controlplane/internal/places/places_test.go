package places_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"reverseproxy/controlplane/internal/places"
	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

func TestOf(t *testing.T) {
	e := &routetablev1.Endpoint{Path: &routetablev1.Endpoint_Prefix{Prefix: "/a"}, Hosts: []string{"*.b.example", "a.example"}}
	want := []places.Place{{"*.b.example", "/a", true}, {"a.example", "/a", true}}
	if diff := cmp.Diff(want, slices.Collect(places.Of(e))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	e = &routetablev1.Endpoint{Path: &routetablev1.Endpoint_Exact{Exact: "/a"}}
	if diff := cmp.Diff([]places.Place{{"", "/a", false}}, slices.Collect(places.Of(e))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// words makes tables and requests out of few words, so that they meet.
type words struct{ *rand.Rand }

func (w words) pick(list ...string) string { return list[w.IntN(len(list))] }

func (w words) path() string {
	var path strings.Builder
	for range w.IntN(4) {
		path.WriteString("/" + w.pick("a", "b", "", "a%2Fb"))
	}
	return path.String()
}

func (w words) table(n int) *routetablev1.RouteTable {
	rt := &routetablev1.RouteTable{}
	for i := range n {
		e := &routetablev1.Endpoint{Name: fmt.Sprintf("e%03d", i)}
		if path := w.path(); w.IntN(2) == 0 {
			e.Path = &routetablev1.Endpoint_Prefix{Prefix: path}
		} else {
			e.Path = &routetablev1.Endpoint_Exact{Exact: path + w.pick("/", "/a")}
		}
		for range w.IntN(3) {
			e.Hosts = append(e.Hosts, w.pick("a.example", "*.example", "b.a.example", "*.a.example"))
		}
		if w.IntN(3) == 0 {
			e.Methods = []string{w.pick("GET", "PUT")}
		}
		for range w.IntN(2) {
			e.Headers = append(e.Headers, &routetablev1.HeaderMatch{Name: "x", Value: w.pick("1", "2")})
		}
		rt.Endpoints = append(rt.Endpoints, e)
	}
	return rt
}

// What the index finds is what the plain matcher finds, also among endpoints that tie.
func TestMatchIsTheReference(t *testing.T) {
	outcomes := map[string]int{}
	for seed := range uint64(300) {
		w := words{rand.New(rand.NewPCG(seed, 0))}
		rt := w.table(1 + w.IntN(40))
		x := places.NewIndex(rt)
		for range 200 {
			fields := []string{w.pick("1", "2", "3"), w.pick("1", "2", "3")}
			r := &routetable.Request{
				Method: w.pick("GET", "PUT", "POST"),
				Host:   w.pick("", "a.example", "A.example:80", "b.a.example.", "c.b.a.example", "x"),
				Path:   w.path() + w.pick("", "/", "/a", "/../b", "/%61", "/..", "/../../.."),
				Header: func(string) []string { return fields },
			}
			if w.IntN(50) == 0 {
				r.Path = "*"
			}
			got, gotAllow, gotErr := x.Match(r)
			want, wantAllow, wantErr := routetable.Match(rt, r)
			if got != want || !slices.Equal(gotAllow, wantAllow) || gotErr != wantErr {
				t.Fatalf("seed %d: %s %s%s %v: got %v %v %v, want %v %v %v\n%v", seed, r.Method, r.Host, r.Path, fields,
					got.GetName(), gotAllow, gotErr, want.GetName(), wantAllow, wantErr, rt)
			}
			switch {
			case wantErr != nil:
				outcomes["400"]++
			case want != nil:
				outcomes["an endpoint"]++
			case len(wantAllow) > 0:
				outcomes["405"]++
			default:
				outcomes["404"]++
			}
		}
	}
	for _, outcome := range []string{"an endpoint", "400", "404", "405"} {
		if outcomes[outcome] < 100 {
			t.Errorf("only %d requests had the outcome %s: %v", outcomes[outcome], outcome, outcomes)
		}
	}
}

// Beside it what it takes without the index.
func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{1, 100, 10_000, 100_000} {
		rt := &routetablev1.RouteTable{}
		for i := range n {
			rt.Endpoints = append(rt.Endpoints, &routetablev1.Endpoint{
				Name: fmt.Sprintf("e%06d", i), Path: &routetablev1.Endpoint_Prefix{Prefix: fmt.Sprintf("/shop/%d", i)}, Hosts: []string{"*.example.com"},
			})
		}
		r := &routetable.Request{Method: "GET", Host: "shop.example.com", Path: fmt.Sprintf("/shop/%d/cart/item", n/2)}
		b.Run(fmt.Sprintf("index/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				places.NewIndex(rt)
			}
		})
		b.Run(fmt.Sprintf("match/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			x := places.NewIndex(rt)
			for b.Loop() {
				if e, _, _ := x.Match(r); e == nil {
					b.Fatal("not found")
				}
			}
		})
		b.Run(fmt.Sprintf("reference/%d", n), func(b *testing.B) {
			for b.Loop() {
				if e, _, _ := routetable.Match(rt, r); e == nil {
					b.Fatal("not found")
				}
			}
		})
	}
}
