package table

import (
	"bytes"
	"cmp"
	"slices"
	"strings"

	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// Query is what matching looks at. The caller keeps it and uses it again; its
// private part is scratch space, so that Match does not allocate. It is used by
// one goroutine at a time.
type Query struct {
	Method, Host, Path []byte // Host as the client sent it, may have a port, may be empty; Path raw
	Query              []byte
	HasQuery           bool
	Header             Headers // nil: there are no fields

	host, path []byte // room for normal forms
}

// Headers looks up a request's header fields.
type Headers interface {
	// HasValue reports whether one of the field lines called name (lower case)
	// has exactly this value.
	HasValue(name, value string) bool
}

// Result is what Match found.
type Result struct {
	Endpoint *Endpoint // nil: none takes the request
	Allow    string    // not empty: 405, and the Allow field's value
	BadPath  bool      // the path is invalid (400)
}

// index finds the endpoints for a host and a path.
type index struct {
	// Host patterns are numbered; anyHost is the number of their absence.
	hosts     map[string]uint32 // exact hosts
	wildcards map[string]uint32 // ".example.com" for *.example.com
	paths     map[place]span
	// depths says, by host number, how many segments its prefixes have.
	depths []depths
	// endpoints has the endpoints of each place next to each other, those with
	// more conditions first.
	endpoints []*Endpoint
}

const anyHost = 0

// place is where endpoints are: all that share a host pattern and a path.
type place struct {
	path   string
	host   uint32
	prefix bool
}

// span is a range of index.endpoints.
type span struct{ start, end uint32 }

// depths are the numbers of segments that prefixes have: bit n for n, the last
// bit for all from there on.
type depths struct {
	bits uint64
	most int
}

const lastDepth = 63

func (d depths) has(n int) bool { return d.bits>>min(n, lastDepth)&1 != 0 }

func newIndex(wire []*routetablev1.Endpoint, endpoints []*Endpoint) index {
	x := index{hosts: map[string]uint32{}, wildcards: map[string]uint32{}, depths: make([]depths, 1)}
	type entry struct {
		place
		endpoint *Endpoint
	}
	entries := make([]entry, 0, len(wire))
	for i, w := range wire {
		e := endpoints[i]
		p := place{path: w.GetExact(), prefix: !e.exact}
		if p.prefix {
			p.path = w.GetPrefix()
		}
		hosts := w.GetHosts()
		if len(hosts) == 0 {
			hosts = []string{""}
		}
		for _, pattern := range hosts {
			p.host = x.number(pattern)
			if p.prefix {
				d := &x.depths[p.host]
				d.bits |= 1 << min(e.segments, lastDepth)
				d.most = max(d.most, int(e.segments))
			}
			entries = append(entries, entry{p, e})
		}
	}
	slices.SortStableFunc(entries, func(a, b entry) int {
		prefix := func(e entry) int {
			if e.prefix {
				return 1
			}
			return 0
		}
		return cmp.Or(
			cmp.Compare(a.host, b.host), strings.Compare(a.path, b.path), cmp.Compare(prefix(a), prefix(b)),
			cmp.Compare(b.endpoint.conditions.count(), a.endpoint.conditions.count()))
	})
	x.endpoints = make([]*Endpoint, len(entries))
	x.paths = make(map[place]span, len(entries))
	for i, e := range entries {
		x.endpoints[i] = e.endpoint
		s, ok := x.paths[e.place]
		if !ok {
			s.start = uint32(i)
		}
		s.end = uint32(i + 1)
		x.paths[e.place] = s
	}
	return x
}

// number returns the number of a host pattern, "" for none.
func (x *index) number(pattern string) uint32 {
	if pattern == "" {
		return anyHost
	}
	m := x.hosts
	if suffix, ok := routetable.WildcardSuffix(pattern); ok {
		m, pattern = x.wildcards, suffix
	}
	n, ok := m[pattern]
	if !ok {
		n = uint32(len(x.depths))
		x.depths = append(x.depths, depths{})
		m[pattern] = n
	}
	return n
}

// count returns how many conditions there are; all methods together are one.
func (c *conditions) count() int {
	switch {
	case c == nil:
		return 0
	case len(c.methods) > 0:
		return 1 + len(c.headers)
	}
	return len(c.headers)
}

// Match finds the endpoint that takes the request. It does not allocate, but for
// the Allow field of a 405.
//
// An empty path, as in the absolute form "http://host", is "/"; the asterisk
// form matches no endpoint.
func (t *Table) Match(q *Query) Result {
	path := q.Path
	switch {
	case len(path) == 0:
		path = root
	case routetable.IsNormalPath(path):
	case len(path) == 1 && path[0] == '*':
		return Result{}
	default:
		var err error
		if q.path, err = routetable.AppendNormalPath(q.path[:0], path); err != nil {
			return Result{BadPath: true}
		}
		path = q.path
	}
	s := search{index: &t.index, q: q, path: path}
	e := s.run()
	if e == nil && s.otherMethod {
		return Result{Allow: s.allow()}
	}
	return Result{Endpoint: e}
}

var root = []byte{'/'}

// search is one run of Match. The order in which it looks is the order of
// preference, so the first endpoint that takes the request is the one.
type search struct {
	index *index
	q     *Query
	path  []byte // normal form
	// otherMethod: an endpoint would take the request if its method were another.
	otherMethod bool
	// collect: their methods are wanted.
	collect bool
	methods []string
}

func (s *search) run() *Endpoint {
	x := s.index
	if len(x.depths) > 1 {
		host := s.host()
		if n, ok := x.hosts[string(host)]; ok {
			if e := s.ofHost(n); e != nil {
				return e
			}
		}
		if len(x.wildcards) > 0 {
			// From the longest suffix on that a label precedes.
			for i := 1; i < len(host); i++ {
				if host[i] != '.' {
					continue
				}
				if n, ok := x.wildcards[string(host[i:])]; ok {
					if e := s.ofHost(n); e != nil {
						return e
					}
				}
			}
		}
	}
	return s.ofHost(anyHost)
}

// host returns the normal form of the request's host.
func (s *search) host() []byte {
	host := routetable.TrimHost(s.q.Host)
	if !routetable.IsLower(host) {
		s.q.host = routetable.AppendLower(s.q.host[:0], host)
		host = s.q.host
	}
	return host
}

// ofHost looks among the endpoints of one host pattern: the exact path, then the
// prefixes from the longest on.
func (s *search) ofHost(n uint32) *Endpoint {
	if at, ok := s.index.paths[place{path: string(s.path), host: n}]; ok {
		if e := s.among(at); e != nil {
			return e
		}
	}
	d := s.index.depths[n]
	if d.bits == 0 {
		return nil
	}
	// The longest prefix that there can be: that many segments of the path.
	end, depth := 0, 0
	for depth < d.most && end < len(s.path) {
		depth++
		if i := bytes.IndexByte(s.path[end+1:], '/'); i >= 0 {
			end += 1 + i
		} else {
			end = len(s.path)
		}
	}
	for ; ; depth-- {
		if d.has(depth) {
			if at, ok := s.index.paths[place{path: string(s.path[:end]), host: n, prefix: true}]; ok {
				if e := s.among(at); e != nil {
					return e
				}
			}
		}
		if depth == 0 {
			return nil
		}
		end = bytes.LastIndexByte(s.path[:end], '/')
	}
}

// among returns the first endpoint of a place whose conditions hold.
func (s *search) among(at span) *Endpoint {
	for _, e := range s.index.endpoints[at.start:at.end] {
		c := e.conditions
		if c == nil {
			return e
		}
		if !c.fulfilled(s.q.Header) {
			continue
		}
		if c.take(s.q.Method) {
			return e
		}
		s.otherMethod = true
		if s.collect {
			s.methods = append(s.methods, c.methods...)
		}
	}
	return nil
}

// fulfilled reports whether the header conditions hold.
func (c *conditions) fulfilled(h Headers) bool {
	for i := range c.headers {
		if h == nil || !h.HasValue(c.headers[i].name, c.headers[i].value) {
			return false
		}
	}
	return true
}

// take reports whether the method is one of those asked for.
func (c *conditions) take(method []byte) bool {
	for _, m := range c.methods {
		if m == string(method) {
			return true
		}
	}
	return len(c.methods) == 0
}

// allow returns the methods with which an endpoint would take the request.
func (s *search) allow() string {
	again := search{index: s.index, q: s.q, path: s.path, collect: true}
	again.run()
	slices.Sort(again.methods)
	return strings.Join(slices.Compact(again.methods), ", ")
}
