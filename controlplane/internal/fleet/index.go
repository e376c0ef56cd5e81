package fleet

import (
	"slices"

	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// Bounds of what is kept of versions that data planes may still run: some 25 MB for
// tables of 100,000 endpoints.
const (
	maxIndexes = 8
	// maxIndexed is how many endpoints all indexes may have together. The newest two are
	// always kept: they are those of a step of a roll-out.
	maxIndexed = 1_000_000
)

// index is what is kept of a version after its table is gone: the names of its
// endpoints and what they are like, so that it can be told what makes another table of
// it. It has no pointers into the table, and is immutable. 100,000 endpoints with names of 20
// bytes take 3.2 MB, or 0.8 MB when the version before had the same names.
type index struct {
	version string
	names   *names
	digests []uint64 // of the endpoints
}

// names are sorted names in one piece.
type names struct {
	text string
	ends []uint32
}

func (n *names) at(i int) string {
	start := uint32(0)
	if i > 0 {
		start = n.ends[i-1]
	}
	return n.text[start:n.ends[i]]
}

// newIndex returns the index of a table, which has the version given.
func newIndex(rt *routetablev1.RouteTable, version string) *index {
	size := 0
	for _, e := range rt.GetEndpoints() {
		size += len(e.GetName())
	}
	text := make([]byte, 0, size)
	n := &names{ends: make([]uint32, 0, len(rt.GetEndpoints()))}
	for _, e := range rt.GetEndpoints() {
		text = append(text, e.GetName()...)
		n.ends = append(n.ends, uint32(len(text)))
	}
	n.text = string(text)
	return &index{version: version, names: n, digests: routetable.Digests(rt)}
}

// indexes are those of the versions that were to be run last, the newest first.
type indexes []*index

// of returns the index of a version, nil when there is none.
func (x indexes) of(version string) *index {
	for _, known := range x {
		if known.version == version {
			return known
		}
	}
	return nil
}

// with returns the indexes with another one as the newest.
func (x indexes) with(newest *index) indexes {
	if len(x) > 0 && x[0].version == newest.version {
		return x
	}
	kept := indexes{newest.sharing(x)}
	endpoints := len(newest.digests)
	for _, known := range x {
		endpoints += len(known.digests)
		if known.version != newest.version && len(kept) < maxIndexes && (len(kept) < 2 || endpoints <= maxIndexed) {
			kept = append(kept, known)
		}
	}
	return kept
}

// sharing returns the index with the names of another one that has the same.
func (x *index) sharing(others indexes) *index {
	for _, o := range others {
		if o.names.text == x.names.text && slices.Equal(o.names.ends, x.names.ends) {
			return &index{version: x.version, names: o.names, digests: x.digests}
		}
	}
	return x
}

// difference is what one version has and another one has not, by endpoints.
type difference struct {
	removed []string
	changed []int // their numbers in the newer version
}

// since returns what has changed from a base to x.
func (x *index) since(base *index) difference {
	var d difference
	i := 0
	for n := range x.digests {
		name := x.names.at(n)
		for ; i < len(base.digests) && base.names.at(i) < name; i++ {
			d.removed = append(d.removed, base.names.at(i))
		}
		if i == len(base.digests) || base.names.at(i) != name {
			d.changed = append(d.changed, n)
			continue
		}
		if base.digests[i] != x.digests[n] {
			d.changed = append(d.changed, n)
		}
		i++
	}
	for ; i < len(base.digests); i++ {
		d.removed = append(d.removed, base.names.at(i))
	}
	return d
}
