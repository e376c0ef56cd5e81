package subscribe

import (
	"bytes"
	"compress/gzip"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

const gzipEncoding = routetablev1.Encoding_ENCODING_GZIP

// zip returns p compressed.
func zip(t testing.TB, p []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(p); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// cut returns data as the chunks of one table.
func cut(version string, revision uint64, decodedSize int, data []byte, size int) []*routetablev1.Chunk {
	var chunks []*routetablev1.Chunk
	for part := range slices.Chunk(data, size) {
		chunks = append(chunks, &routetablev1.Chunk{
			Version: version, Revision: revision, Index: uint32(len(chunks)), Encoding: gzipEncoding,
			DecodedSize: uint64(decodedSize), Data: bytes.Clone(part),
		})
	}
	for _, c := range chunks {
		c.Count = uint32(len(chunks))
	}
	return chunks
}

func TestAssembly(t *testing.T) {
	v1 := cut("v1", 1, 100, []byte("the first table"), 5)
	v2 := cut("v2", 2, 200, []byte("second"), 100)
	with := func(c *routetablev1.Chunk, change func(*routetablev1.Chunk)) *routetablev1.Chunk {
		c = proto.CloneOf(c)
		change(c)
		return c
	}
	asDelta := func(base string) func(*routetablev1.Chunk) {
		return func(c *routetablev1.Chunk) { c.Encoding, c.Base = routetablev1.Encoding_ENCODING_DELTA_GZIP, base }
	}
	tests := []struct {
		name   string
		chunks []*routetablev1.Chunk
		// what the chunks give in order; "" for nothing, else a version, "refused
		// <version>" or "broken".
		want []string
	}{
		{"one chunk", v2, []string{"v2"}},
		{"three chunks", v1, []string{"", "", "v1"}},
		{"one table after the other", slices.Concat(v1, v2, v1), []string{"", "", "v1", "v2", "", "", "v1"}},
		{"a newer table in the middle", slices.Concat(v1[:2], v2), []string{"", "", "v2"}},
		{"the same table starts over", slices.Concat(v1[:2], v1), []string{"", "", "", "", "v1"}},
		{"first chunk missing", v1[1:2], []string{"broken"}},
		{"gap", []*routetablev1.Chunk{v1[0], v1[2]}, []string{"", "broken"}},
		{"chunk twice", []*routetablev1.Chunk{v1[0], v1[1], v1[1]}, []string{"", "", "broken"}},
		{"index beyond count", []*routetablev1.Chunk{v2[0], with(v2[0], func(c *routetablev1.Chunk) { c.Index = 1 })}, []string{"v2", "broken"}},
		{"no chunks at all", []*routetablev1.Chunk{with(v2[0], func(c *routetablev1.Chunk) { c.Count = 0 })}, []string{"broken"}},
		{"too many chunks", []*routetablev1.Chunk{with(v2[0], func(c *routetablev1.Chunk) { c.Count = maxChunks + 1 })}, []string{"broken"}},
		{"no version", []*routetablev1.Chunk{with(v2[0], func(c *routetablev1.Chunk) { c.Version = "" })}, []string{"broken"}},
		{"long version", []*routetablev1.Chunk{with(v2[0], func(c *routetablev1.Chunk) { c.Version = strings.Repeat("v", maxVersionSize+1) })}, []string{"broken"}},
		{"version changes on the way", []*routetablev1.Chunk{v1[0], with(v1[1], func(c *routetablev1.Chunk) { c.Version = "v2" })}, []string{"", "broken"}},
		{"revision changes on the way", []*routetablev1.Chunk{v1[0], with(v1[1], func(c *routetablev1.Chunk) { c.Revision++ })}, []string{"", "broken"}},
		{"count changes on the way", []*routetablev1.Chunk{v1[0], with(v1[1], func(c *routetablev1.Chunk) { c.Count++ })}, []string{"", "broken"}},
		{"size changes on the way", []*routetablev1.Chunk{v1[0], with(v1[1], func(c *routetablev1.Chunk) { c.DecodedSize++ })}, []string{"", "broken"}},
		{"after a break a table starts over", slices.Concat(v1[1:2], v1), []string{"broken", "", "", "v1"}},
		{"a delta", []*routetablev1.Chunk{with(v2[0], asDelta("v1"))}, []string{"v2"}},
		{"a delta of nothing", []*routetablev1.Chunk{with(v2[0], asDelta(""))}, []string{"broken"}},
		{"a delta with a long base", []*routetablev1.Chunk{with(v2[0], asDelta(strings.Repeat("v", maxVersionSize+1)))}, []string{"broken"}},
		{"a whole table with a base", []*routetablev1.Chunk{with(v2[0], func(c *routetablev1.Chunk) { c.Base = "v1" })}, []string{"broken"}},
		{"base changes on the way", []*routetablev1.Chunk{with(v1[0], asDelta("v0")), with(v1[1], asDelta("v9"))}, []string{"", "broken"}},
		{"encoding changes on the way", []*routetablev1.Chunk{v1[0], with(v1[1], asDelta("v0"))}, []string{"", "broken"}},
		{"unknown encoding", []*routetablev1.Chunk{with(v2[0], func(c *routetablev1.Chunk) { c.Encoding = 7 })}, []string{"refused v2"}},
		{"announced too large", append([]*routetablev1.Chunk{with(v2[0], func(c *routetablev1.Chunk) { c.DecodedSize = maxDecodedSize + 1 })}, v1...),
			[]string{"refused v2", "", "", "v1"}},
		{"the rest of a refused table is skipped", slices.Concat(func() []*routetablev1.Chunk {
			cs := cut("v3", 3, 100, []byte("abcdef"), 2)
			for _, c := range cs {
				c.Encoding = 7
			}
			return cs
		}(), v2), []string{"refused v3", "", "", "v2"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var a assembly
			var got []string
			for _, c := range tt.chunks {
				o, err := a.add(proto.CloneOf(c))
				var r *refusal
				switch {
				case errors.As(err, &r):
					got = append(got, "refused "+r.version)
				case errors.Is(err, errSequence):
					got = append(got, "broken")
				case err != nil:
					t.Fatalf("add: %v", err)
				case o != nil:
					got = append(got, o.version)
				default:
					got = append(got, "")
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("chunks gave (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAssemblyJoinsTheBytes(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 1000)
	var a assembly
	var got *offer
	for _, c := range cut("v", 7, 42, data, 999) {
		o, err := a.add(c)
		if err != nil {
			t.Fatal(err)
		}
		if o != nil {
			got = o
		}
	}
	if got == nil {
		t.Fatal("the table is not complete")
	}
	want := &offer{version: "v", revision: 7, decodedSize: 42, data: data}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(offer{})); diff != "" {
		t.Errorf("joined table (-want +got):\n%s", diff)
	}
}

func TestAssemblyBoundsTheEncodedSize(t *testing.T) {
	part := make([]byte, 1<<20)
	var a assembly
	for i := range uint32(maxEncodedSize/len(part) + 1) {
		_, err := a.add(&routetablev1.Chunk{Version: "v", Index: i, Count: 1000, Encoding: gzipEncoding, DecodedSize: 1, Data: part})
		if i < uint32(maxEncodedSize/len(part)) {
			if err != nil {
				t.Fatalf("chunk %d: %v", i, err)
			}
			continue
		}
		var r *refusal
		if !errors.As(err, &r) {
			t.Errorf("chunk %d beyond the limit: got %v, want a refusal", i, err)
		}
		if a.data != nil {
			t.Error("the refused table still holds memory")
		}
	}
}

func TestUnpack(t *testing.T) {
	wire, err := proto.Marshal(smallTable(8000))
	if err != nil {
		t.Fatal(err)
	}
	zipped := zip(t, wire)
	bomb := zip(t, make([]byte, 10<<20))
	// Two bytes each, and hundreds once they are unpacked.
	endpoints := bytes.Repeat([]byte{3<<3 | 2, 0}, maxParts+1)
	backends := bytes.Repeat([]byte{7<<3 | 2, 0}, maxParts)
	backends = append(protowire.AppendVarint([]byte{3<<3 | 2}, uint64(len(backends))), backends...)
	tests := []struct {
		name    string
		size    uint64
		data    []byte
		wantErr string
	}{
		{"good", uint64(len(wire)), zipped, ""},
		{"empty", 0, nil, "unpack"},
		{"garbage", 10, []byte("this is not gzip"), "unpack"},
		{"cut short", uint64(len(wire)), zipped[:len(zipped)-9], "unpack"},
		{"bytes after the end", uint64(len(wire)), append(bytes.Clone(zipped), "tail"...), "unpack"},
		{"damaged checksum", uint64(len(wire)), func() []byte {
			p := bytes.Clone(zipped)
			p[len(p)-5] ^= 1
			return p
		}(), "unpack"},
		{"larger than announced", uint64(len(wire)) - 1, zipped, "more than the announced"},
		{"smaller than announced", uint64(len(wire)) + 1, zipped, "announced were"},
		{"bomb", 1000, bomb, "more than the announced"},
		{"a bomb of endpoints", uint64(len(endpoints)), zip(t, endpoints), "more than 10000000 endpoints"},
		{"a bomb of backends", uint64(len(backends)), zip(t, backends), "more than 10000000 endpoints"},
		{"announced too large", maxDecodedSize + 1, zipped, "at most"},
		{"announced more than gzip can do", 10 << 20, zipped, "cannot unpack"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := (&offer{version: "v", decodedSize: tt.size, data: tt.data}).unpack()
			if tt.wantErr == "" {
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, wire) || cap(got) > len(got)+8<<10 {
					t.Errorf("unpacked %x in %d bytes, want %x", got, cap(got), wire)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
				t.Errorf("got error %v, want one with %q", err, tt.wantErr)
			}
		})
	}
}

// FuzzChunks feeds any sequence of chunks: nothing may panic or grow beyond the
// limits, and what is joined is what was sent last from index 0 on.
func FuzzChunks(f *testing.F) {
	seed := func(sequences ...[]*routetablev1.Chunk) {
		var p []byte
		for _, c := range slices.Concat(sequences...) {
			b, err := proto.Marshal(c)
			if err != nil {
				f.Fatal(err)
			}
			p = append(append(p, byte(len(b))), b...)
		}
		f.Add(p)
	}
	wire, err := proto.Marshal(smallTable(8000))
	if err != nil {
		f.Fatal(err)
	}
	v1 := cut("v1", 1, len(wire), zip(f, wire), 40)
	v2 := cut("v2", 2, 10, []byte("not gzip"), 3)
	seed(v1)
	seed(v1[:1], v2, v1)
	seed(v2[1:], v2)
	seed(cut("huge", 1, maxDecodedSize+1, []byte("xx"), 1))
	f.Fuzz(func(t *testing.T, p []byte) {
		var a assembly
		var sent []byte
		for len(p) > 0 {
			n := min(int(p[0]), len(p)-1)
			var c routetablev1.Chunk
			if proto.Unmarshal(p[1:1+n], &c) != nil {
				return
			}
			p = p[1+n:]
			if c.GetIndex() == 0 {
				sent = nil
			}
			sent = append(sent, c.GetData()...)
			o, err := a.add(&c)
			if o == nil {
				continue
			}
			if err != nil {
				t.Fatalf("both a table and the error %v", err)
			}
			if !bytes.Equal(o.data, sent) {
				t.Fatalf("joined %q, sent were %q", o.data, sent)
			}
			if o.decodedSize <= 1<<20 {
				_, _ = o.unpack()
			}
		}
	})
}
