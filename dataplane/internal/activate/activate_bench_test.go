package activate_test

import (
	"fmt"
	"log/slog"
	"testing"

	"google.golang.org/protobuf/proto"

	"reverseproxy/dataplane/internal/activate"
	"reverseproxy/dataplane/internal/activate/activatetest"
	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// BenchmarkActivate puts two tables in force in turn that differ in one backend.
func BenchmarkActivate(b *testing.B) {
	for _, size := range []int{100, 10_000, 100_000} {
		b.Run(fmt.Sprintf("endpoints=%d", size), func(b *testing.B) {
			first, _ := activatetest.Table(activatetest.Port(b), "http://127.0.0.1:5001")
			e := first.Endpoints[0]
			first.Endpoints = nil
			for i := range size {
				e := proto.CloneOf(e)
				e.Name = fmt.Sprintf("/%06d", i)
				e.Path = &routetablev1.Endpoint_Exact{Exact: e.Name}
				for j := range 2 {
					e.Pool = append(e.Pool, &routetablev1.Backend{Url: fmt.Sprintf("http://10.0.%d.%d/%d", i%256, j, i), Weight: 1})
				}
				first.Endpoints = append(first.Endpoints, e)
			}
			second := proto.CloneOf(first)
			second.Endpoints[size/2].Pool[0].Url = "http://127.0.0.1:5002"
			tables := [][]byte{activatetest.Encode(b, first), activatetest.Encode(b, second)}
			versions := []string{routetable.Version(first), routetable.Version(second)}
			o := activatetest.Options(b)
			o.Log = slog.New(slog.DiscardHandler)
			a := activate.New(o)
			n := 0
			for b.Loop() {
				if err := a.Activate(tables[n%2], versions[n%2], uint64(n), activate.Stream); err != nil {
					b.Fatal(err)
				}
				n++
			}
		})
	}
}
