package activate_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"runtime"
	"testing"

	"google.golang.org/protobuf/proto"

	"reverseproxy/dataplane/internal/activate"
	"reverseproxy/dataplane/internal/activate/activatetest"
	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// BenchmarkActivate puts two tables in force in turn, of endpoints with two
// backends of their own each, that differ in one backend. It also reports what is
// kept in memory at rest, per endpoint.
func BenchmarkActivate(b *testing.B) {
	for _, size := range []int{100, 10_000, 100_000} {
		b.Run(fmt.Sprintf("endpoints=%d", size), func(b *testing.B) {
			rt, _ := activatetest.Table(activatetest.Port(b), "http://127.0.0.1:5001")
			e := rt.Endpoints[0]
			rt.Endpoints = nil
			for i := range size {
				e := proto.CloneOf(e)
				e.Name = fmt.Sprintf("/service/%06d/index", i)
				e.Path = &routetablev1.Endpoint_Exact{Exact: e.Name}
				e.Pool = nil
				for j := range 2 {
					e.Pool = append(e.Pool, &routetablev1.Backend{Url: fmt.Sprintf("http://10.%d.%d.%d:8080/index", j, i/256, i%256), Weight: 1})
				}
				rt.Endpoints = append(rt.Endpoints, e)
			}
			var tables [2][]byte
			var versions [2]string
			for i := range tables {
				rt.Endpoints[size/2].Pool[0].Url = fmt.Sprintf("http://127.0.0.1:%d", 5001+i)
				tables[i], versions[i] = activatetest.Encode(b, rt), routetable.Version(rt)
			}
			o := activatetest.Options(b)
			o.Log = slog.New(slog.DiscardHandler)
			a := activate.New(o)
			activate := func(n int) {
				// As it comes from the stream: bytes that nobody else has.
				if err := a.Activate(bytes.Clone(tables[n%2]), versions[n%2], uint64(n), activate.Stream); err != nil {
					b.Fatal(err)
				}
			}
			before := heap()
			activate(0)
			kept := float64(heap()-before) / float64(size)
			n := 0
			for b.Loop() {
				n++
				activate(n)
			}
			b.ReportMetric(kept, "B/endpoint")
		})
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
