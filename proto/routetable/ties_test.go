package routetable_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

func TestTies(t *testing.T) {
	type conditions = []string
	tests := []struct {
		name  string
		fromA string
		a     conditions
		fromB string
		b     conditions
		want  bool
	}{
		{"same", "/a", nil, "/a", nil, true},
		{"path", "/a", nil, "/b", nil, false},
		{"exact and prefix", "/a", nil, "/a/*", nil, false},
		{"host and none", "/a", conditions{"host:h"}, "/a", nil, false},
		{"hosts", "/a", conditions{"host:h"}, "/a", conditions{"host:i"}, false},
		{"a host in common", "/a", conditions{"host:h", "host:i"}, "/a", conditions{"host:i", "host:j"}, true},
		{"wildcard and exact", "/a", conditions{"host:*.h"}, "/a", conditions{"host:x.h"}, false},
		{"same wildcard", "/a", conditions{"host:*.h"}, "/a", conditions{"host:*.h"}, true},
		{"conditions and none", "/a", conditions{"method:GET"}, "/a", nil, false},
		{"disjoint methods", "/a", conditions{"method:GET"}, "/a", conditions{"method:PUT", "method:POST"}, false},
		{"a method in common", "/a", conditions{"method:GET", "method:PUT"}, "/a", conditions{"method:PUT"}, true},
		{"method and header", "/a", conditions{"method:GET"}, "/a", conditions{"x=1"}, true},
		{"other value", "/a", conditions{"x=1"}, "/a", conditions{"x=2"}, false},
		{"same value", "/a", conditions{"x=1"}, "/a", conditions{"x=1"}, true},
		{"other header", "/a", conditions{"x=1"}, "/a", conditions{"y=1"}, true},
		{"one of two headers excludes", "/a", conditions{"x=1", "y=1"}, "/a", conditions{"x=1", "y=2"}, false},
		{"more headers", "/a", conditions{"x=1", "y=1"}, "/a", conditions{"x=1"}, false},
		{"method in common, header excludes", "/a", conditions{"method:GET", "x=1"}, "/a", conditions{"method:GET", "x=2"}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := routetable.Ties([]*routetablev1.Endpoint{endpoint("a", test.fromA, test.a...), endpoint("b", test.fromB, test.b...)})
			if err != nil {
				t.Fatal(err)
			}
			var want []routetable.Tie
			if test.want {
				want = []routetable.Tie{{First: 0, Second: 1}}
			}
			if diff := cmp.Diff(want, slices.Clip(append([]routetable.Tie(nil), got...))); diff != "" {
				t.Errorf("ties (-want +got):\n%s", diff)
			}
		})
	}
}

func TestValidateReportsTies(t *testing.T) {
	err := routetable.Validate(tableOf(endpoint("a", "/x"), endpoint("b", "/y"), endpoint("c", "/x")))
	want := `endpoints[2]: takes the same requests as endpoints[0] ("a") with equal right; they must differ in host, path or conditions`
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// tie is the definition.
func tie(a, b *routetablev1.Endpoint) bool {
	hosts := func(e *routetablev1.Endpoint) []string {
		if len(e.Hosts) == 0 {
			return []string{"any"}
		}
		return e.Hosts
	}
	shared := func(a, b []string) bool {
		return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
	}
	count := func(e *routetablev1.Endpoint) int { return len(e.Headers) + min(1, len(e.Methods)) }
	if !shared(hosts(a), hosts(b)) || a.GetExact() != b.GetExact() || a.GetPrefix() != b.GetPrefix() || count(a) != count(b) {
		return false
	}
	if len(a.Methods) > 0 && len(b.Methods) > 0 && !shared(a.Methods, b.Methods) {
		return false
	}
	for _, x := range a.Headers {
		for _, y := range b.Headers {
			if x.Name == y.Name && x.Value != y.Value {
				return false
			}
		}
	}
	return true
}

// Against the definition, on groups that are large enough to be split.
func TestTiesAgainstDefinition(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	pick := func(list ...string) string { return list[rnd.IntN(len(list))] }
	tied := 0
	for range 2000 {
		var list []*routetablev1.Endpoint
		values := 1 + rnd.IntN(40)
		common := rnd.IntN(2) == 0
		for i := range 2 + rnd.IntN(40) {
			var c []string
			if rnd.IntN(4) == 0 {
				c = append(c, pick("host:h", "host:*.h"))
			}
			for _, m := range []string{"GET", "HEAD", "POST", "PUT", "X", "Y"} {
				if rnd.IntN(6) == 0 {
					c = append(c, "method:"+m)
				}
			}
			for _, h := range []string{"k", "l", "m"} {
				if (common && h == "k") || rnd.IntN(3) == 0 {
					c = append(c, fmt.Sprintf("%s=%d", h, rnd.IntN(values)))
				}
			}
			list = append(list, endpoint(fmt.Sprint(i), pick("/a", "/a", "/a", "/a/*"), c...))
		}
		got, err := routetable.Ties(list)
		if err != nil {
			t.Fatal(err)
		}
		want := map[int]bool{}
		for j := range list {
			for i := range j {
				if tie(list[i], list[j]) {
					want[j] = true
				}
			}
		}
		tied += len(want)
		for k, g := range got {
			if !want[g.Second] || g.First >= g.Second || !tie(list[g.First], list[g.Second]) {
				t.Fatalf("%v is no tie: %v, %v", g, list[g.First], list[g.Second])
			}
			if k > 0 && got[k-1].Second >= g.Second {
				t.Fatalf("not in order: %v", got)
			}
			delete(want, g.Second)
		}
		if len(want) > 0 {
			t.Fatalf("ties not found: %v of %v", want, list)
		}
	}
	if tied == 0 {
		t.Error("no ties in the test")
	}
}

// Groups of many endpoints on one path.
func TestTiesOfManyEndpoints(t *testing.T) {
	const n = 50_000
	list := func(conditions func(i int) []string) (l []*routetablev1.Endpoint) {
		for i := range n {
			l = append(l, endpoint(fmt.Sprint(i), "/a", conditions(i)...))
		}
		return l
	}
	t.Run("a header tells them apart", func(t *testing.T) {
		ties, err := routetable.Ties(list(func(i int) []string { return []string{"method:GET", fmt.Sprintf("x-tenant=%d", i)} }))
		if err != nil || len(ties) != 0 {
			t.Errorf("%d ties, %v", len(ties), err)
		}
	})
	t.Run("methods tell them apart", func(t *testing.T) {
		ties, err := routetable.Ties(list(func(i int) []string { return []string{fmt.Sprintf("method:M%d", i)} }))
		if err != nil || len(ties) != 0 {
			t.Errorf("%d ties, %v", len(ties), err)
		}
	})
	t.Run("all the same", func(t *testing.T) {
		ties, err := routetable.Ties(list(func(int) []string { return nil }))
		if err != nil || len(ties) != n-1 {
			t.Errorf("%d ties, %v", len(ties), err)
		}
	})
	t.Run("nothing in common to go by", func(t *testing.T) {
		_, err := routetable.Ties(list(func(i int) []string {
			switch i % 3 {
			case 0:
				return []string{fmt.Sprintf("x=%d", i), "y=0"}
			case 1:
				return []string{"y=1", fmt.Sprintf("z=%d", i)}
			}
			return []string{fmt.Sprintf("x=%d", i), fmt.Sprintf("z=%d", i)}
		}))
		if !errors.Is(err, routetable.ErrTooAlike) {
			t.Error(err)
		}
	})
}
