package plan

import (
	"slices"

	"google.golang.org/protobuf/proto"

	"reverseproxy/controlplane/internal/places"
	"reverseproxy/controlplane/internal/traffic"
	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// side is one of the two tables.
type side struct {
	endpoints map[string]*routetablev1.Endpoint // by name
	index     *places.Index
}

func newSide(t *routetablev1.RouteTable) *side {
	s := &side{endpoints: make(map[string]*routetablev1.Endpoint, len(t.GetEndpoints())), index: places.NewIndex(t)}
	for _, e := range t.GetEndpoints() {
		s.endpoints[e.GetName()] = e
	}
	return s
}

// flow is where requests come from and go to, by the names of endpoints; empty: none
// takes them.
type flow struct {
	from, to string
	status   uint32 // what the proxy would answer; 0: it would not
}

// amount is how many requests take a flow.
type amount struct {
	weight   float64
	examples []string
}

// shownExamples is how many requests an impact shows.
const shownExamples = 5

func (a *amount) add(s *traffic.Sample) {
	a.weight += s.Weight
	if example := s.Method + " " + s.Host + s.Path; len(a.examples) < shownExamples && !slices.Contains(a.examples, example) {
		a.examples = append(a.examples, example)
	}
}

// sample finds out what becomes of one.
func (p *planner) sample(s *traffic.Sample) {
	r := &routetable.Request{Method: s.Method, Host: s.Host, Path: s.Path}
	before, after := p.running.index.Near(r), p.planned.index.Near(r)
	var k fields
	if !s.At.Before(p.Since) {
		k = learn(before, s.Endpoint, r)
	}
	now := outcomes(before, k, r)
	if len(now) > 1 {
		if !alike(before, after) {
			p.unknown += s.Weight
		}
		return // whichever takes it now
	}
	from := now[0].endpoint.GetName()
	p.seen[from] += s.Weight
	then := outcomes(after, k, r)
	if len(then) > 1 {
		p.unknown += s.Weight
		p.uncertain[from] += s.Weight
		return
	}
	p.flow(s, now[0], then[0])
}

// flow counts a request by what becomes of it.
func (p *planner) flow(s *traffic.Sample, now, then outcome) {
	answered := now.endpoint != nil && usable(now.endpoint)
	f := flow{from: now.endpoint.GetName(), to: then.endpoint.GetName(), status: then.status()}
	switch {
	case f.status != 0 && !answered:
		return // it is not answered now either
	case f.status != 0:
		p.lost += s.Weight
	case now.endpoint != nil && p.successor[f.from] == then.endpoint:
		return // the same one, by whatever name
	default:
		p.moved += s.Weight
	}
	if p.flows[f] == nil {
		p.flows[f] = &amount{}
	}
	p.flows[f].add(s)
}

// outcome is what may become of a request.
type outcome struct {
	endpoint *routetablev1.Endpoint // nil: none takes it
	method   bool                   // it would be taken with another method
}

// status is with what the proxy answers a request that no backend gets, else 0.
func (o outcome) status() uint32 {
	switch {
	case o.endpoint != nil && !usable(o.endpoint):
		return 503
	case o.endpoint != nil:
		return 0
	case o.method:
		return 405
	}
	return 404
}

// usable reports whether an endpoint answers, or has a backend that may.
func usable(e *routetablev1.Endpoint) bool {
	return e.GetAnswer() != nil || slices.ContainsFunc(e.GetPool(), func(b *routetablev1.Backend) bool { return b.GetWeight() > 0 })
}

// fields is what a sample tells of the header fields of its request, which it does not
// have itself. The zero value is nothing.
type fields struct {
	// has are fields that it has.
	has []*routetablev1.HeaderMatch
	// lacks are lists of fields; of each list it does not have all.
	lacks [][]*routetablev1.HeaderMatch
}

// learn concludes from the endpoint that took a request, and from those near it that
// are better and did not take it. What is contradictory comes from another table: from
// that nothing is concluded.
func learn(near []*routetablev1.Endpoint, name string, r *routetable.Request) fields {
	var k fields
	var took []*routetablev1.Endpoint
	if name != "" {
		i := slices.IndexFunc(near, func(e *routetablev1.Endpoint) bool { return e.GetName() == name })
		if i < 0 {
			return fields{}
		}
		took = near[i : i+1]
		k.has = took[0].GetHeaders()
		if match(took, k.has, r).endpoint == nil {
			return fields{}
		}
	}
	for i, e := range near {
		if e.GetName() == name || match(append(near[i:i+1:i+1], took...), slices.Concat(k.has, e.GetHeaders()), r).endpoint != e {
			continue
		}
		lacks := k.missing(e)
		if len(lacks) == 0 {
			return fields{}
		}
		k.lacks = append(k.lacks, lacks)
	}
	return k
}

// missing are the header conditions of an endpoint that are not known to hold.
func (k *fields) missing(e *routetablev1.Endpoint) []*routetablev1.HeaderMatch {
	var list []*routetablev1.HeaderMatch
	for _, m := range e.GetHeaders() {
		if !contains(k.has, m) {
			list = append(list, m)
		}
	}
	return list
}

func contains(list []*routetablev1.HeaderMatch, m *routetablev1.HeaderMatch) bool {
	return slices.ContainsFunc(list, func(o *routetablev1.HeaderMatch) bool {
		return o.GetName() == m.GetName() && o.GetValue() == m.GetValue()
	})
}

// excludes reports whether not all of some fields, which are not known to be there,
// can be.
func (k *fields) excludes(missing []*routetablev1.HeaderMatch) bool {
	for _, m := range missing {
		// A field with two values is possible, but nobody means it.
		if slices.ContainsFunc(k.has, func(o *routetablev1.HeaderMatch) bool { return o.GetName() == m.GetName() }) {
			return true
		}
	}
	return slices.ContainsFunc(k.lacks, func(list []*routetablev1.HeaderMatch) bool {
		return !slices.ContainsFunc(list, func(m *routetablev1.HeaderMatch) bool { return !contains(missing, m) })
	})
}

// outcomes returns what may become of a request near which these endpoints are: the
// first if it has no other fields than those that are known, each of the others if it
// has more.
func outcomes(near []*routetablev1.Endpoint, k fields, r *routetable.Request) []outcome {
	var certain, perhaps []*routetablev1.Endpoint
	for _, e := range near {
		switch missing := k.missing(e); {
		case len(missing) == 0:
			certain = append(certain, e)
		case !k.excludes(missing):
			perhaps = append(perhaps, e)
		}
	}
	list := []outcome{match(certain, k.has, r)}
	for _, e := range perhaps {
		if o := match(append(certain[:len(certain):len(certain)], e), slices.Concat(k.has, e.GetHeaders()), r); o.endpoint == e {
			list = append(list, o)
		}
	}
	return list
}

// match is routetable.Match for a request with some header fields.
func match(endpoints []*routetablev1.Endpoint, has []*routetablev1.HeaderMatch, r *routetable.Request) outcome {
	with := *r
	with.Header = func(name string) (values []string) {
		for _, m := range has {
			if m.GetName() == name {
				values = append(values, m.GetValue())
			}
		}
		return values
	}
	e, allow, err := routetable.Match(&routetablev1.RouteTable{Endpoints: endpoints}, &with)
	if err != nil {
		return outcome{} // samples have valid paths
	}
	return outcome{endpoint: e, method: len(allow) > 0}
}

// alike reports whether the endpoints near a request are the same in both tables, as far
// as it matters for which one takes it.
func alike(a, b []*routetablev1.Endpoint) bool {
	return slices.EqualFunc(a, b, func(a, b *routetablev1.Endpoint) bool {
		return a.GetName() == b.GetName() && proto.Equal(conditions(a), conditions(b))
	})
}

// conditions is the part of an endpoint that says what it matches.
func conditions(e *routetablev1.Endpoint) *routetablev1.Endpoint {
	return &routetablev1.Endpoint{Path: e.GetPath(), Hosts: e.GetHosts(), Methods: e.GetMethods(), Headers: e.GetHeaders()}
}

// content tells endpoints apart by everything but the name.
func content(e *routetablev1.Endpoint) string {
	unnamed := proto.CloneOf(e)
	unnamed.Name = ""
	text, err := proto.MarshalOptions{Deterministic: true}.Marshal(unnamed)
	if err != nil {
		return "named " + e.GetName() // no valid table has it
	}
	return string(text)
}
