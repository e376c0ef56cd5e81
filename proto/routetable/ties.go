package routetable

import (
	"cmp"
	"errors"
	"slices"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

// Tie is a pair of endpoints, by index, of which neither is better for a request
// that both match. First is less than Second.
type Tie struct{ First, Second int }

// ErrTooAlike says that so many endpoints share host, path and number of
// conditions, with so little in common between their conditions, that it would
// take too long to compare them all.
var ErrTooAlike = errors.New("too many endpoints with the same host and path to compare their conditions; give them a header in common with a different value in each")

// Comparing endpoints one by one is quadratic; this many comparisons take
// less than a second.
const maxComparisons = 2_000_000

// Ties finds endpoints that tie: they have a host pattern in common (or both
// have none), the same path and the same number of conditions, and their
// conditions do not exclude each other by different methods or by different
// values of one header. At least one tie is found of every endpoint that has
// one with an endpoint before it; ties are ordered by Second.
//
// Endpoints need not be sorted. The error can only be ErrTooAlike, which a
// configuration that is meant for people or tenants does not meet: endpoints
// that all ask for one header with different values are told apart in linear
// time.
func Ties(endpoints []*routetablev1.Endpoint) ([]Tie, error) {
	type place struct {
		host, path string
		prefix     bool
		conditions int
	}
	// Endpoints of one place are chained, latest first, so that the common case
	// of one endpoint per place costs one map entry and nothing else.
	type link struct{ endpoint, next int32 }
	links := make([]link, 1, len(endpoints)+1)
	heads := make(map[place]int32, len(endpoints))
	var crowded []place
	add := func(p place, i int) {
		head := heads[p]
		if head != 0 && links[head].next == 0 {
			crowded = append(crowded, p)
		}
		links = append(links, link{int32(i), head})
		heads[p] = int32(len(links) - 1)
	}
	for i, e := range endpoints {
		p := place{conditions: conditions(e)}
		p.path, p.prefix = pathOf(e)
		if len(e.GetHosts()) == 0 {
			add(p, i)
		}
		for _, p.host = range e.GetHosts() {
			add(p, i)
		}
	}
	c := comparison{endpoints: endpoints, left: maxComparisons, found: map[int]int{}}
	for _, p := range crowded {
		var group []int
		for l := heads[p]; l != 0; l = links[l].next {
			group = append(group, int(links[l].endpoint))
		}
		slices.Sort(group)
		c.compare(slices.Compact(group), nil, false)
	}
	ties := make([]Tie, 0, len(c.found))
	for second, first := range c.found {
		ties = append(ties, Tie{first, second})
	}
	slices.SortFunc(ties, func(a, b Tie) int { return cmp.Compare(a.Second, b.Second) })
	if c.left < 0 {
		return ties, ErrTooAlike
	}
	return ties, nil
}

// comparison finds ties among endpoints of one place.
type comparison struct {
	endpoints []*routetablev1.Endpoint
	left      int         // comparisons that may still be made; negative: given up
	found     map[int]int // second → first
}

// compare looks for ties in an ascending group of endpoints that agree in the
// headers named in same and, if sameMethod, have a method in common.
func (c *comparison) compare(group []int, same []string, sameMethod bool) {
	const few = 8 // not worth splitting
	if len(group) > few {
		if name, parts := c.splitByHeader(group, same); parts != nil {
			for _, part := range parts {
				c.compare(part, append(same[:len(same):len(same)], name), sameMethod)
			}
			return
		}
		if parts := c.splitByMethod(group); parts != nil && !sameMethod {
			for _, part := range parts {
				c.compare(part, same, true)
			}
			return
		}
	}
	for i, second := range group {
		for _, first := range group[:i] {
			if c.left--; c.left < 0 {
				return
			}
			if !exclusive(c.endpoints[first], c.endpoints[second]) {
				if known, ok := c.found[second]; !ok || first < known {
					c.found[second] = first
				}
				break
			}
		}
	}
}

// splitByHeader finds a header that every endpoint of the group asks for and
// returns the group in parts of equal values: endpoints of different parts
// exclude each other.
func (c *comparison) splitByHeader(group []int, same []string) (name string, parts map[string][]int) {
candidates:
	for _, m := range c.endpoints[group[0]].GetHeaders() {
		if slices.Contains(same, m.GetName()) {
			continue
		}
		parts = map[string][]int{}
		for _, i := range group {
			value, ok := headerValue(c.endpoints[i], m.GetName())
			if !ok {
				continue candidates
			}
			parts[value] = append(parts[value], i)
		}
		return m.GetName(), parts
	}
	return "", nil
}

// splitByMethod returns the group in parts that have a method in common, nil
// when an endpoint takes any. An endpoint can be in several parts.
func (c *comparison) splitByMethod(group []int) (parts map[string][]int) {
	parts = map[string][]int{}
	for _, i := range group {
		methods := c.endpoints[i].GetMethods()
		if len(methods) == 0 {
			return nil
		}
		for _, m := range methods {
			parts[m] = append(parts[m], i)
		}
	}
	return parts
}

// exclusive reports whether no request can fulfil the conditions of both.
func exclusive(a, b *routetablev1.Endpoint) bool {
	if len(a.GetMethods()) > 0 && len(b.GetMethods()) > 0 &&
		!slices.ContainsFunc(a.GetMethods(), func(m string) bool { return slices.Contains(b.GetMethods(), m) }) {
		return true
	}
	for _, m := range a.GetHeaders() {
		if value, ok := headerValue(b, m.GetName()); ok && value != m.GetValue() {
			return true
		}
	}
	return false
}

// headerValue returns the value that an endpoint asks for.
func headerValue(e *routetablev1.Endpoint, name string) (value string, ok bool) {
	for _, m := range e.GetHeaders() {
		if m.GetName() == name {
			return m.GetValue(), true
		}
	}
	return "", false
}
