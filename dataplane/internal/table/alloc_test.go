//go:build !race

package table_test

import (
	"testing"

	"reverseproxy/dataplane/internal/table"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

func TestMatchDoesNotAllocate(t *testing.T) {
	tab := compile(t, wireTable(
		endpoint("exact", "/index"), endpoint("prefix", "/assets/*"), endpoint("host", "/index", "host:shop.example.com"),
		endpoint("wild", "/index", "host:*.example.com"), endpoint("beta", "/index", "method:GET", "x-beta=1"),
		withPool(endpoint("static", "/static/*"), "http://h/s?a"),
	), newState())
	var header table.Headers = fields{"x-beta": {"2"}}
	for _, target := range []struct{ host, path string }{
		{"", "/index"}, {"shop.example.com", "/index"}, {"Shop.Example.com:8000", "/index"}, {"a.b.example.com", "/index"},
		{"h", "/assets/a/b/c"}, {"h", "/x/../assets/%61/%e2"}, {"h", "/none"}, {"h", "/.."}, {"h", "*"}, {"h", ""}, {"h", "/static/a/b"},
	} {
		q := &table.Query{Method: []byte("GET"), Host: []byte(target.host), Path: []byte(target.path), Header: header}
		dst := make([]byte, 0, 100)
		if n := testing.AllocsPerRun(100, func() {
			if e := tab.Match(q).Endpoint; e != nil {
				dst = e.AppendTarget(dst[:0], e.Pool.Pick(&table.Choice{}).Backend, q)
			}
		}); n != 0 {
			t.Errorf("%s%s: %v allocations", target.host, target.path, n)
		}
	}
}

func TestRewriteDoesNotAllocate(t *testing.T) {
	prefix, path := endpoint("a", "/a/*"), endpoint("b", "/b")
	prefix.Rewrite = &routetablev1.Rewrite{To: &routetablev1.Rewrite_Prefix{Prefix: "/x"}}
	path.Rewrite = &routetablev1.Rewrite{To: &routetablev1.Rewrite_Path{Path: "/x"}}
	tab := compile(t, wireTable(prefix, path), newState())
	for _, target := range []string{"/a/b/c", "/b", "/%61/b"} {
		q := &table.Query{Method: []byte("GET"), Path: []byte(target)}
		dst := make([]byte, 0, 100)
		if n := testing.AllocsPerRun(100, func() {
			e := tab.Match(q).Endpoint
			if !e.Rewrite(q) {
				t.Fatal("no path")
			}
			dst = e.AppendTarget(dst[:0], e.Pool.Backends[0], q)
		}); n != 0 {
			t.Errorf("%s: %v allocations", target, n)
		}
	}
}
