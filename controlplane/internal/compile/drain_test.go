package compile_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"reverseproxy/controlplane/internal/compile"
	"reverseproxy/proto/routetable"
)

func TestDrain(t *testing.T) {
	const pools = `
port: 8000
requestId: true
endpoints:
- {name: a, from: /a, pool: [http://h:1, {url: http://h:2, weight: 3}]}
- {name: b, from: /b, pool: [http://h:2/x, {url: http://h:3, weight: 0}]}
- {name: c, from: /c, pool: [http://h:1]}
- {name: d, from: /d, pool: [http://h:4, http://h:1, http://h:1]}
`
	for _, test := range []struct {
		name    string
		drained []string
		want    [][]uint32 // weights
		emptied []string
	}{
		{"nothing", nil, [][]uint32{{1, 3}, {1, 0}, {1}, {1, 1, 1}}, nil},
		{"one in many pools", []string{"http://h:1"}, [][]uint32{{0, 3}, {1, 0}, {0}, {1, 0, 0}}, []string{"c"}},
		{"by the exact text", []string{"http://h:2"}, [][]uint32{{1, 0}, {1, 0}, {1}, {1, 1, 1}}, nil},
		{"the last of several", []string{"http://h:1", "http://h:2"}, [][]uint32{{0, 0}, {1, 0}, {0}, {1, 0, 0}}, []string{"a", "c"}},
		{"which gets nothing anyway", []string{"http://h:3"}, [][]uint32{{1, 3}, {1, 0}, {1}, {1, 1, 1}}, nil},
		{"which no pool has", []string{"http://none"}, [][]uint32{{1, 3}, {1, 0}, {1}, {1, 1, 1}}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := table(t, pools)
			kept := proto.CloneOf(before)
			drained := map[string]bool{}
			for _, url := range test.drained {
				drained[url] = true
			}
			got := compile.Drain(before, drained)
			want := proto.CloneOf(before)
			for i, weights := range test.want {
				for j, w := range weights {
					want.Endpoints[i].Pool[j].Weight = w
				}
			}
			if diff := cmp.Diff(got, want, protocmp.Transform()); diff != "" {
				t.Errorf("table (-got +want):\n%s", diff)
			}
			if err := routetable.Validate(got); err != nil {
				t.Errorf("it is not valid: %v", err)
			}
			if diff := cmp.Diff(before, kept, protocmp.Transform()); diff != "" {
				t.Errorf("the table given was changed:\n%s", diff)
			}
			if diff := cmp.Diff(compile.Emptied(before, got), test.emptied); diff != "" {
				t.Errorf("emptied (-got +want):\n%s", diff)
			}
		})
	}
}
