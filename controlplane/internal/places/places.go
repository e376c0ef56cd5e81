// Package places finds the endpoints of a route table by their places, which are what
// clients know an endpoint by: its host patterns, each with its path. It is pure.
package places

import (
	"cmp"
	"iter"
	"slices"

	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// Place is a host pattern with a path.
type Place struct {
	Host   string // empty: any
	Path   string
	Prefix bool // the path and everything below it
}

// Of yields the places of an endpoint.
func Of(e *routetablev1.Endpoint) iter.Seq[Place] {
	return func(yield func(Place) bool) {
		p := Place{Path: e.GetExact()}
		if prefix, ok := e.GetPath().(*routetablev1.Endpoint_Prefix); ok {
			p.Path, p.Prefix = prefix.Prefix, true
		}
		if len(e.GetHosts()) == 0 {
			yield(p)
			return
		}
		for _, p.Host = range e.GetHosts() {
			if !yield(p) {
				return
			}
		}
	}
}

// Index finds the endpoint that takes a request without looking at all of them. It is
// immutable and may be used from several goroutines; the table must not change.
type Index struct {
	table *routetablev1.RouteTable
	// at has the endpoints of each place, by their index in the table.
	at map[Place][]int32
}

// NewIndex returns the index of a table.
func NewIndex(t *routetablev1.RouteTable) *Index {
	x := &Index{table: t, at: make(map[Place][]int32, len(t.GetEndpoints()))}
	for i, e := range t.GetEndpoints() {
		for p := range Of(e) {
			x.at[p] = append(x.at[p], int32(i))
		}
	}
	return x
}

// Match is routetable.Match: it decides among the endpoints at whose places the request
// is, and the others match nothing of it.
func (x *Index) Match(r *routetable.Request) (e *routetablev1.Endpoint, allow []string, err error) {
	return routetable.Match(&routetablev1.RouteTable{Endpoints: x.Near(r)}, r)
}

// Near returns the endpoints at whose places the request is, in the table's order, on
// which Match depends when a request has several values of one header field.
func (x *Index) Near(r *routetable.Request) []*routetablev1.Endpoint {
	path, err := routetable.NormalizePath(cmp.Or(r.Path, "/"))
	if err != nil {
		return nil // Match says so, or it is the asterisk form
	}
	var found []int32
	for host := range patterns(routetable.NormalizeHost(r.Host)) {
		found = append(found, x.at[Place{host, path, false}]...)
		for i := range len(path) {
			if path[i] == '/' {
				found = append(found, x.at[Place{host, path[:i], true}]...)
			}
		}
		found = append(found, x.at[Place{host, path, true}]...)
	}
	slices.Sort(found)
	found = slices.Compact(found) // an endpoint may have several of the patterns
	endpoints := make([]*routetablev1.Endpoint, len(found))
	for i, n := range found {
		endpoints[i] = x.table.GetEndpoints()[n]
	}
	return endpoints
}

// patterns yields the host patterns that match a normalized host.
func patterns(host string) iter.Seq[string] {
	return func(yield func(string) bool) {
		if !yield("") || host != "" && !yield(host) {
			return
		}
		for i := 1; i < len(host); i++ {
			if host[i] == '.' && !yield("*"+host[i:]) {
				return
			}
		}
	}
}
