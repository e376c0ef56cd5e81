//go:build !race

package table_test

import (
	"testing"

	"reverseproxy/dataplane/internal/table"
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
