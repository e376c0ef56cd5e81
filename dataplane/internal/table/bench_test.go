package table_test

import (
	"fmt"
	"runtime"
	"testing"

	"reverseproxy/dataplane/internal/table"
	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// sized returns a table of n exact endpoints with three backends each, and of a
// few prefixes, as a large configuration has them.
func sized(n int) *routetablev1.RouteTable {
	var list []*routetablev1.Endpoint
	for i := range n {
		e := endpoint(fmt.Sprintf("/service/%06d/index", i), fmt.Sprintf("/service/%06d/index", i))
		e.Pool = nil
		for b := range 3 {
			e.Pool = append(e.Pool, &routetablev1.Backend{Url: fmt.Sprintf("http://10.0.%d.%d:8080/index", i%256, b), Weight: 1})
		}
		list = append(list, e)
	}
	return wireTable(append(list, endpoint("/assets/*", "/assets/*"), endpoint("/assets/img/*", "/assets/img/*"))...)
}

func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{1, 100, 10_000, 100_000} {
		tab := compile(b, sized(n), newState())
		for _, c := range []struct{ name, path string }{
			{"first", "/service/000000/index"},
			{"last", fmt.Sprintf("/service/%06d/index", n-1)},
			{"miss", "/service/x/index"},
			{"prefix", "/assets/img/logo/dark.png"},
			{"escaped", fmt.Sprintf("/service/./%06d/%%69ndex", n-1)},
		} {
			q := &table.Query{Method: []byte("GET"), Host: []byte("shop.example.com"), Path: []byte(c.path)}
			b.Run(fmt.Sprintf("%d/%s", n, c.name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					tab.Match(q)
				}
			})
		}
	}
}

func BenchmarkMatchHosts(b *testing.B) {
	var list []*routetablev1.Endpoint
	for i := range 10_000 {
		list = append(list, endpoint(fmt.Sprint(i), "/index", fmt.Sprintf("host:h%d.example.com", i)))
	}
	tab := compile(b, wireTable(append(list, endpoint("wild", "/*", "host:*.example.com"), endpoint("any", "/*"))...), newState())
	for _, host := range []string{"h9999.example.com", "H9999.Example.com:8000", "a.b.c.example.com", "other.org"} {
		q := &table.Query{Method: []byte("GET"), Host: []byte(host), Path: []byte("/index")}
		b.Run(host, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				tab.Match(q)
			}
		})
	}
}

func BenchmarkAppendTarget(b *testing.B) {
	tab := compile(b, wireTable(withPool(endpoint("a", "/assets/*"), "http://h/static")), newState())
	q := &table.Query{Method: []byte("GET"), Path: []byte("/assets/img/logo.png"), Query: []byte("v=1"), HasQuery: true}
	e := tab.Match(q).Endpoint
	dst := make([]byte, 0, 100)
	b.ReportAllocs()
	for b.Loop() {
		dst = e.AppendTarget(dst[:0], e.Pool.Backends[0], q)
	}
}

// BenchmarkNew also reports what a table at rest keeps in memory, per endpoint.
func BenchmarkNew(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			rt := sized(n)
			encoded, version := encode(b, rt), routetable.Version(rt)
			s := newState()
			make := func() *table.Table {
				tab, err := table.New(encoded, version, 1, s)
				if err != nil {
					b.Fatal(err)
				}
				return tab
			}
			before := heap()
			kept := make()
			size := float64(heap()-before+uint64(len(encoded))) / float64(n)
			b.ReportAllocs()
			for b.Loop() {
				make()
			}
			b.ReportMetric(size, "B/endpoint")
			runtime.KeepAlive(kept)
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
