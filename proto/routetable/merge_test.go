package routetable_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// plainMerge does what Merge does with messages.
func plainMerge(base *routetablev1.RouteTable, d *routetablev1.RouteTableDelta) *routetablev1.RouteTable {
	t := &routetablev1.RouteTable{}
	if d.GetRest() != nil {
		t = proto.CloneOf(d.GetRest())
	}
	endpoints := map[string]*routetablev1.Endpoint{}
	for _, e := range base.GetEndpoints() {
		endpoints[e.GetName()] = e
	}
	for _, name := range d.GetRemoved() {
		delete(endpoints, name)
	}
	for _, e := range d.GetChanged() {
		endpoints[e.GetName()] = e
	}
	t.Endpoints = nil
	for _, e := range endpoints {
		t.Endpoints = append(t.Endpoints, e)
	}
	slices.SortFunc(t.Endpoints, func(a, b *routetablev1.Endpoint) int { return strings.Compare(a.GetName(), b.GetName()) })
	return t
}

// plainDelta returns what makes a table from a base.
func plainDelta(base, table *routetablev1.RouteTable) *routetablev1.RouteTableDelta {
	d := &routetablev1.RouteTableDelta{Rest: proto.CloneOf(table), DecodedSize: uint64(proto.Size(table))}
	d.Rest.Endpoints = nil
	before := map[string]*routetablev1.Endpoint{}
	for _, e := range base.GetEndpoints() {
		before[e.GetName()] = e
	}
	for _, e := range table.GetEndpoints() {
		if !proto.Equal(before[e.GetName()], e) {
			d.Changed = append(d.Changed, e)
		}
		delete(before, e.GetName())
	}
	for name := range before {
		d.Removed = append(d.Removed, name)
	}
	slices.Sort(d.Removed)
	return d
}

// merged merges and decodes the result.
func merged(t *testing.T, base, delta []byte) (*routetablev1.RouteTable, error) {
	t.Helper()
	keptBase, keptDelta := bytes.Clone(base), bytes.Clone(delta)
	result, err := routetable.Merge(base, delta)
	if !bytes.Equal(base, keptBase) || !bytes.Equal(delta, keptDelta) {
		t.Fatal("Merge has changed what it was given")
	}
	if err != nil {
		return nil, err
	}
	if len(result) > len(base)+len(delta) {
		t.Errorf("%d bytes were made of %d and %d", len(result), len(base), len(delta))
	}
	var table routetablev1.RouteTable
	if err := proto.Unmarshal(result, &table); err != nil {
		return nil, err
	}
	return &table, nil
}

func TestMergeOfRandomTables(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	table := func() *routetablev1.RouteTable {
		rt := &routetablev1.RouteTable{Port: 8000, Limits: limits(), RequestId: random.IntN(2) == 0}
		if random.IntN(3) == 0 {
			rt.TrustedProxies = []string{"10.0.0.0/8"}
		}
		for i := range random.IntN(12) {
			if random.IntN(3) == 0 {
				continue
			}
			name := fmt.Sprintf("/e%02d", i)
			rt.Endpoints = append(rt.Endpoints, &routetablev1.Endpoint{
				Name: name, Path: &routetablev1.Endpoint_Exact{Exact: name}, Timeouts: timeouts(), ReplaceHost: random.IntN(4) == 0,
				Pool: []*routetablev1.Backend{{Url: fmt.Sprintf("http://h%d", random.IntN(3)), Weight: 1}},
			})
		}
		return rt
	}
	for range 2000 {
		base, want := table(), table()
		encodedBase := marshal(t, base)
		got, err := merged(t, encodedBase, marshal(t, plainDelta(base, want)))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Fatalf("table (-want +got):\n%s", diff)
		}
		if v, w := routetable.Version(got), routetable.Version(want); v != w {
			t.Fatalf("version %s, want %s", v, w)
		}
	}
}

func TestMergeRefuses(t *testing.T) {
	base := large(4)
	change := func(f func(d *routetablev1.RouteTableDelta)) []byte {
		next := large(5)
		next.Endpoints[1].ReplaceHost = true
		next.Endpoints = slices.Delete(next.Endpoints, 2, 3)
		d := plainDelta(base, next)
		f(d)
		return marshal(t, d)
	}
	good := change(func(*routetablev1.RouteTableDelta) {})
	unsorted := proto.CloneOf(base)
	slices.Reverse(unsorted.Endpoints)
	for _, test := range []struct {
		name        string
		base, delta []byte
		want        string // "" is none
	}{
		{"nothing", marshal(t, base), good, ""},
		{"a size that is too small", marshal(t, base), change(func(d *routetablev1.RouteTableDelta) { d.DecodedSize-- }), "announced"},
		{"a size that is too large", marshal(t, base), change(func(d *routetablev1.RouteTableDelta) { d.DecodedSize++ }), "announced"},
		{"a nonsensical size", marshal(t, base), change(func(d *routetablev1.RouteTableDelta) { d.DecodedSize = 1 << 62 }), "makes 4611686018427387904 bytes"},
		{"a name that is not there", marshal(t, base), change(func(d *routetablev1.RouteTableDelta) { d.Removed[0] += "x" }), "does not have"},
		{"a name both removed and changed", marshal(t, base), change(func(d *routetablev1.RouteTableDelta) {
			d.Removed[0] = d.Changed[0].Name
		}), "does not have"},
		{"names twice", marshal(t, base), change(func(d *routetablev1.RouteTableDelta) { d.Removed = append(d.Removed, d.Removed[0]) }), "not sorted"},
		{"endpoints in another order", marshal(t, base), change(func(d *routetablev1.RouteTableDelta) { slices.Reverse(d.Changed) }), "not sorted"},
		{"endpoints in the rest", marshal(t, base), change(func(d *routetablev1.RouteTableDelta) { d.Rest.Endpoints = base.Endpoints[:1] }), "the rest has endpoints"},
		{"a field of a later release", marshal(t, base), protowire.AppendVarint(protowire.AppendTag(bytes.Clone(good), 9, protowire.VarintType), 1), "not known"},
		{"no delta at all", marshal(t, base), []byte("\xff"), "decode the delta"},
		{"another base", marshal(t, large(2)), good, "does not have"},
		{"a base in another order", marshal(t, unsorted), good, "base are not sorted"},
		{"no base", nil, good, "makes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := merged(t, test.base, test.delta)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// Whatever the bytes are: no panic, and no other result than that of messages.
func FuzzMerge(f *testing.F) {
	base := large(3)
	next := large(4)
	next.Endpoints[1].ReplaceHost = true
	next.Endpoints = next.Endpoints[1:]
	f.Add(marshal(f, base), marshal(f, plainDelta(base, next)))
	f.Add(marshal(f, small()), marshal(f, plainDelta(small(), base)))
	f.Add([]byte{3<<3 | 2, 0}, []byte{3<<3 | 2, 0, 4 << 3, 2})
	f.Fuzz(func(t *testing.T, base, delta []byte) {
		got, err := merged(t, base, delta)
		var b routetablev1.RouteTable
		var d routetablev1.RouteTableDelta
		if err != nil || proto.Unmarshal(base, &b) != nil || proto.Unmarshal(delta, &d) != nil {
			return
		}
		if len(marshal(t, &b)) != len(base) || len(marshal(t, &d)) != len(delta) {
			return // nobody encodes them so, such as with two names of one endpoint
		}
		if routetable.Validate(got) != nil {
			return // nobody uses it
		}
		if diff := cmp.Diff(plainMerge(&b, &d), got, protocmp.Transform()); diff != "" {
			t.Errorf("table (-messages +Merge):\n%s", diff)
		}
	})
}

func BenchmarkMerge(b *testing.B) {
	base, next := large(100_000), large(100_000)
	next.Endpoints[50_000].ReplaceHost = true
	encodedBase, encodedDelta := marshal(b, base), marshal(b, plainDelta(base, next))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := routetable.Merge(encodedBase, encodedDelta); err != nil {
			b.Fatal(err)
		}
	}
}
