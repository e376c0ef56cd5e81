package table

import (
	"bytes"
	"slices"
	"strings"

	"reverseproxy/proto/routetable"
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
	normal     []byte // the path in normal form; empty: it has none
	rewritten  []byte // see Endpoint.Rewrite
}

// NormalPath returns the path in normal form, nothing if it has none. Only after
// Match, while Path is what it was then.
func (q *Query) NormalPath() []byte { return q.normal }

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

// Match finds the endpoint that takes the request. It does not allocate, but for
// the Allow field of a 405 and when an endpoint comes into use.
//
// An empty path, as in the absolute form "http://host", is "/"; the asterisk
// form matches no endpoint.
func (t *Table) Match(q *Query) Result {
	path := q.Path
	q.normal = nil
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
	q.normal = path
	s := search{table: t, q: q, path: path}
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
	table *Table
	q     *Query
	path  []byte // normal form
	// otherMethod: an endpoint would take the request if its method were another.
	otherMethod bool
	// collect: their methods are wanted.
	collect bool
	methods []string
}

func (s *search) run() *Endpoint {
	t := s.table
	if len(t.index.hosts) > 1 {
		host := s.host()
		if n, ok := t.findHost(host, false); ok {
			if e := s.ofHost(n); e != nil {
				return e
			}
		}
		if t.index.wildcards {
			// From the longest suffix on that a label precedes.
			for i := 1; i < len(host); i++ {
				if host[i] != '.' {
					continue
				}
				if n, ok := t.findHost(host[i:], true); ok {
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
	if e := s.at(s.path, n, false); e != nil {
		return e
	}
	h := &s.table.index.hosts[n]
	if h.depths == 0 {
		return nil
	}
	// The longest prefix that there can be: that many segments of the path.
	end, depth := 0, 0
	for depth < int(h.deepest) && end < len(s.path) {
		depth++
		if i := bytes.IndexByte(s.path[end+1:], '/'); i >= 0 {
			end += 1 + i
		} else {
			end = len(s.path)
		}
	}
	for ; ; depth-- {
		if h.has(depth) {
			if e := s.at(s.path[:end], n, true); e != nil {
				return e
			}
		}
		if depth == 0 {
			return nil
		}
		end = bytes.LastIndexByte(s.path[:end], '/')
	}
}

// at returns the first endpoint of a place whose conditions hold.
func (s *search) at(path []byte, host uint32, prefix bool) *Endpoint {
	t := s.table
	i, found := t.findPlace(placeHash(path, host, prefix), path, host, prefix)
	if !found {
		return nil
	}
	for n := t.index.places.cells[i].number; n != 0; n = t.index.links[n-1].next {
		e := t.use(t.index.links[n-1].endpoint)
		if !e.fulfilled(s.q.Header) {
			continue
		}
		if e.takes(s.q.Method) {
			return e
		}
		s.otherMethod = true
		if s.collect {
			s.methods = append(s.methods, e.methods...)
		}
	}
	return nil
}

// fulfilled reports whether the header conditions hold.
func (e *Endpoint) fulfilled(h Headers) bool {
	for i := range e.headers {
		if h == nil || !h.HasValue(e.headers[i].name, e.headers[i].value) {
			return false
		}
	}
	return true
}

// takes reports whether the method is one of those asked for.
func (e *Endpoint) takes(method []byte) bool {
	for _, m := range e.methods {
		if m == string(method) {
			return true
		}
	}
	return len(e.methods) == 0
}

// allow returns the methods with which an endpoint would take the request.
func (s *search) allow() string {
	again := search{table: s.table, q: s.q, path: s.path, collect: true}
	again.run()
	slices.Sort(again.methods)
	return strings.Join(slices.Compact(again.methods), ", ")
}
