package routetable_test

import (
	"bytes"
	"errors"
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

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	data, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// scan compares Scan, and CheckTies after it, with what Unmarshal, Validate and
// Version say about the same bytes, and returns the error.
func scan(t *testing.T, data []byte) error {
	t.Helper()
	var got []*routetablev1.Endpoint
	var numbers []int
	rest, version, err := routetable.Scan(data, func(e *routetablev1.Endpoint, start, end int) {
		var again routetablev1.Endpoint
		if err := proto.Unmarshal(data[start:end], &again); err != nil || !proto.Equal(&again, e) {
			t.Errorf("endpoint %d: its bytes are those of %v (%v), not of %v", len(got), &again, err, e)
		}
		numbers = append(numbers, len(got))
		got = append(got, proto.CloneOf(e))
	})
	if err == nil {
		err = routetable.CheckTies(got, numbers)
	}
	var whole routetablev1.RouteTable
	if unmarshal := proto.Unmarshal(data, &whole); unmarshal != nil {
		if err == nil || !strings.HasPrefix(err.Error(), "decode the route table: ") {
			t.Errorf("got %v, Unmarshal says %v", err, unmarshal)
		}
		return err
	}
	want := routetable.Validate(&whole)
	if diff := cmp.Diff(routetable.Problems(want), routetable.Problems(err)); diff != "" {
		t.Errorf("problems (-Validate +Scan):\n%s", diff)
	}
	if want != nil {
		return err
	}
	if v := routetable.Version(&whole); version != v {
		t.Errorf("version %s, want %s", version, v)
	}
	if diff := cmp.Diff(whole.GetEndpoints(), got, protocmp.Transform()); diff != "" {
		t.Errorf("endpoints (-Unmarshal +Scan):\n%s", diff)
	}
	whole.Endpoints = nil
	if diff := cmp.Diff(&whole, rest, protocmp.Transform()); diff != "" {
		t.Errorf("the rest (-Unmarshal +Scan):\n%s", diff)
	}
	return err
}

func TestScan(t *testing.T) {
	change := func(f func(*routetablev1.RouteTable)) []byte {
		table := small()
		f(table)
		return marshal(t, table)
	}
	endpoint := func(e *routetablev1.Endpoint) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, 3, protowire.BytesType), marshal(t, e))
	}
	good := marshal(t, small())
	tests := []struct {
		name string
		data []byte
		want []string // beginnings of the problems
	}{
		{"good", good, nil},
		{"large", marshal(t, large(1000)), nil},
		{"empty", nil, []string{"port", "limits"}},
		{"problems in order", change(func(t *routetablev1.RouteTable) {
			t.Port, t.Limits = 0, nil
			t.Endpoints[0].Pool, t.Endpoints[1].Name = nil, ""
		}), []string{"port: ", "endpoints[0].pool: ", "endpoints[1].name: ", "limits: "}},
		{"not sorted", change(func(t *routetablev1.RouteTable) { slices.Reverse(t.Endpoints) }), []string{"endpoints[1].name: "}},
		{"tie", change(func(t *routetablev1.RouteTable) {
			e := proto.CloneOf(t.Endpoints[1])
			e.Name += "2"
			t.Endpoints = append(t.Endpoints, e)
		}), []string{"endpoints[2]: takes the same requests as endpoints[1]"}},
		// Other orders of the fields than ours are valid, and the same table.
		{"limits first", slices.Concat(change(func(t *routetablev1.RouteTable) { t.Endpoints = nil }),
			endpoint(small().Endpoints[0]), endpoint(small().Endpoints[1])), nil},
		// The last of two ports counts; two messages of limits become one.
		{"fields twice", slices.Concat(marshal(t, &routetablev1.RouteTable{Port: 7, Limits: &routetablev1.Limits{MaxHeadBytes: 1}}), good), nil},
		{"endpoints of another type", append(bytes.Clone(good), 3<<3, 1), []string{"has a field that this release does not know"}},
		{"field of a later release", protowire.AppendVarint(protowire.AppendTag(bytes.Clone(good), 1000, protowire.VarintType), 1),
			[]string{"has a field that this release does not know"}},
		{"garbage", []byte("\xff\xff\xff"), []string{"decode"}},
		{"cut short", good[:len(good)-1], []string{"decode"}},
		{"garbage in an endpoint", append([]byte{3<<3 | 2, 2, 1<<3 | 2, 9}, good...), []string{"decode the route table: endpoints[0]: "}},
		{"invalid UTF-8", bytes.Replace(good, []byte("x-beta"), []byte("x-\xff\xffta"), 1), []string{"decode"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			problems := routetable.Problems(scan(t, test.data))
			if len(problems) != len(test.want) {
				t.Fatalf("problems are %v, want %q", problems, test.want)
			}
			for i, p := range problems {
				if !strings.HasPrefix(p.Error(), test.want[i]) {
					t.Errorf("problem %q, want %q", p, test.want[i])
				}
			}
		})
	}
}

// Forms in which nobody encodes an endpoint, but which mean something: they mean
// the same to Scan.
func TestScanUnusualForms(t *testing.T) {
	bytesField := func(number protowire.Number, content ...byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), content)
	}
	varint := func(number protowire.Number, v uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(nil, number, protowire.VarintType), v)
	}
	text := func(number protowire.Number, s string) []byte { return bytesField(number, []byte(s)...) }
	backend := func(fields ...[]byte) []byte { return bytesField(7, slices.Concat(fields...)...) }
	head := marshal(t, &routetablev1.RouteTable{Port: 80, Limits: limits()})
	pool, times := backend(text(1, "http://h"), varint(2, 1)), bytesField(8, marshal(t, timeouts())...)
	usual := slices.Concat(text(1, "/a"), text(2, "/a"), pool, times)
	next := slices.Concat(text(1, "/z"), text(2, "/z"), pool, times)
	for name, more := range map[string][]byte{
		"nothing more":                     nil,
		"name again":                       text(1, "/b"),
		"empty name again":                 text(1, ""),
		"exact again":                      text(2, "/b"),
		"exact, then prefix":               text(3, "/b"),
		"host":                             text(4, "a.example"),
		"method of another type":           varint(5, 1),
		"header with its name twice":       bytesField(6, slices.Concat(text(1, "x-a"), text(1, "x-b"), text(2, "v"))...),
		"header without a name":            bytesField(6, text(2, "v")...),
		"timeouts again":                   bytesField(8, bytesField(1, varint(1, 7)...)...),
		"timeouts of another form":         bytesField(8, bytesField(3, varint(2, 1<<40)...)...),
		"negative nanoseconds":             bytesField(8, bytesField(3, varint(2, 1<<64-1)...)...),
		"unknown field in a duration":      bytesField(8, bytesField(3, varint(3, 1)...)...),
		"unknown field in timeouts":        bytesField(8, varint(9, 1)...),
		"replace_host":                     varint(9, 1),
		"replace_host of 2":                varint(9, 2),
		"replace_host, then not":           append(varint(9, 1), varint(9, 0)...),
		"backend with its URL twice":       backend(text(1, "http://a"), text(1, "http://b"), varint(2, 1)),
		"backend with its weight twice":    backend(text(1, "http://a"), varint(2, 1), varint(2, 2)),
		"backend with a weight of 64 bits": backend(text(1, "http://a"), varint(2, 1<<32+1)),
		"backend without a weight":         backend(text(1, "http://a")),
		"long forms of numbers":            backend(text(1, "http://a"), []byte{2 << 3, 0x81, 0x80, 0x00}),
		"long form of a tag":               {0x80 | 9<<3, 0x00, 1},
		"field number 0":                   {0, 0},
		"group":                            {10<<3 | 3, 10<<3 | 4},
		"field of 64 bits":                 {10<<3 | 1, 1, 2, 3, 4, 5, 6, 7, 8},
		"invalid UTF-8":                    text(4, "\xff"),
		"cut short":                        {1<<3 | 2, 5, 'a'},
		"varint without an end":            {9 << 3, 0xff},
	} {
		t.Run(name, func(t *testing.T) {
			for _, e := range [][]byte{append(bytes.Clone(usual), more...), append(bytes.Clone(more), usual...)} {
				scan(t, slices.Concat(head, bytesField(3, e...), bytesField(3, next...)))
			}
		})
	}
}

// A table of nothing but mistakes is not looked at to its end.
func TestScanEndsAfterManyProblems(t *testing.T) {
	_, _, err := routetable.Scan(bytes.Repeat([]byte{3<<3 | 2, 0}, 1_000_000), func(*routetablev1.Endpoint, int, int) { t.Error("called for an invalid endpoint") })
	problems := routetable.Problems(err)
	if n := len(problems); n < 10_000 || n > 11_000 {
		t.Fatalf("%d problems", n)
	}
	if last := problems[len(problems)-1].Message; !strings.Contains(last, "may be more") {
		t.Errorf("the last says %q", last)
	}
}

func TestWalk(t *testing.T) {
	message := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "abc")
	message = protowire.AppendVarint(protowire.AppendTag(message, 20, protowire.VarintType), 300)
	message = protowire.AppendString(protowire.AppendTag(message, 2, protowire.BytesType), "")
	var got []routetable.Field
	if err := routetable.Walk(message, func(f routetable.Field) bool { got = append(got, f); return true }); err != nil {
		t.Fatal(err)
	}
	want := []routetable.Field{
		{Number: 1, Kind: protowire.BytesType, Start: 0, Value: 2, End: 5},
		{Number: 20, Kind: protowire.VarintType, Start: 5, Value: 7, End: 9},
		{Number: 2, Kind: protowire.BytesType, Start: 9, Value: 11, End: 11},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
	seen := 0
	if err := routetable.Walk(message, func(routetable.Field) bool { seen++; return false }); err != nil || seen != 1 {
		t.Errorf("after false: %d fields, %v", seen, err)
	}
	for n := 1; n < len(message); n++ {
		if n == 5 || n == 9 {
			continue // a whole message too
		}
		if err := routetable.Walk(message[:n], func(routetable.Field) bool { return true }); err == nil {
			t.Errorf("%d bytes of it are a message", n)
		}
	}
}

func FuzzScan(f *testing.F) {
	f.Add(marshal(f, small()))
	f.Add(marshal(f, large(3)))
	f.Add([]byte{3<<3 | 2, 0, 3 << 3, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		err := scan(t, data)
		var p *routetable.Problem
		if err != nil && !errors.As(err, &p) && !strings.HasPrefix(err.Error(), "decode the route table: ") {
			t.Errorf("error without a problem: %v", err)
		}
	})
}

func BenchmarkScan(b *testing.B) {
	data := marshal(b, large(100_000))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := routetable.Scan(data, func(*routetablev1.Endpoint, int, int) {}); err != nil {
			b.Fatal(err)
		}
	}
}
