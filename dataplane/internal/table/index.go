package table

import (
	"cmp"
	"hash/maphash"
	"math/bits"
	"slices"

	"reverseproxy/proto/routetable"
)

// index finds the endpoints for a host and a path. It has no pointers but to its
// own few blocks.
type index struct {
	// Host patterns are numbered; anyHost is the number of their absence.
	hosts       []host
	hostNumbers hashTable // of hosts
	wildcards   bool      // there are some
	links       []link
	places      hashTable // of the first link of each place
}

const anyHost = 0

// host is a host pattern.
type host struct {
	// depths are the numbers of segments that the prefixes of this host have: bit
	// n for n, the last bit for all from there on.
	depths   uint64
	start    uint32 // in the encoded table; of a wildcard, of its suffix
	deepest  uint16 // the most segments
	size     uint8
	wildcard bool
}

const lastDepth = 63

func (h *host) has(depth int) bool { return h.depths>>min(depth, lastDepth)&1 != 0 }

// link is one endpoint of a place, which is a host pattern with a path. The
// endpoints of a place are chained, those with more conditions first.
type link struct {
	host, endpoint uint32
	next           uint32 // the number of the next link plus 1, 0: none
}

// hashTable finds numbers by hashes. It is an open hash table with linear
// probing; at most four of five cells are taken.
type hashTable struct {
	cells []cell
	shift uint8 // a hash's upper bits say where to begin
}

// cell is free when number is 0.
type cell struct {
	hash   uint32 // the lower bits
	number uint32 // plus 1
}

func newHashTable(n int) hashTable {
	size := bits.Len(uint(max(n, 1) * 5 / 4))
	return hashTable{cells: make([]cell, 1<<size), shift: uint8(64 - size)}
}

// first returns where the cells begin that may be those of a hash; next follows.
func (t *hashTable) first(hash uint64) int { return int(hash >> t.shift) }

func (t *hashTable) next(i int) int { return (i + 1) & (len(t.cells) - 1) }

var seed = maphash.MakeSeed()

// hostHash and placeHash spread their bits over all 64.
func hostHash(host []byte) uint64 { return maphash.Bytes(seed, host) }

func placeHash(path []byte, host uint32, prefix bool) uint64 {
	h := maphash.Bytes(seed, path) ^ uint64(host)<<1
	if prefix {
		h ^= 1
	}
	return h * 0x9e3779b97f4a7c15
}

// host returns the number of a host pattern that starts at an offset of the
// encoded table.
func (c *compiler) host(pattern string, start uint32) uint32 {
	n, ok := c.numbers[pattern]
	if !ok {
		n = uint32(len(c.hosts))
		c.numbers[pattern] = n
		suffix, wildcard := routetable.WildcardSuffix(pattern)
		if wildcard {
			start += uint32(len(pattern) - len(suffix))
			pattern = suffix
		}
		c.hosts = append(c.hosts, host{start: start, size: uint8(len(pattern)), wildcard: wildcard})
	}
	return n
}

// place puts an endpoint where it is to be found.
func (c *compiler) place(endpoint, host uint32) {
	c.links = append(c.links, link{host: host, endpoint: endpoint})
}

// buildIndex makes the index. It returns the numbers of endpoints, ascending,
// that share a place and a number of conditions with another one: they may tie.
func (t *Table) buildIndex(hosts []host, links []link) (alike []int) {
	x := &t.index
	x.hosts, x.hostNumbers = hosts, newHashTable(len(hosts))
	for n := 1; n < len(hosts); n++ {
		h := &hosts[n]
		x.wildcards = x.wildcards || h.wildcard
		hash := hostHash(t.hostText(h))
		i := x.hostNumbers.first(hash)
		for x.hostNumbers.cells[i].number != 0 {
			i = x.hostNumbers.next(i)
		}
		x.hostNumbers.cells[i] = cell{uint32(hash), uint32(n + 1)}
	}
	x.links, x.places = links, newHashTable(len(links))
	var crowded []int // cells of places with several endpoints
	for n := range links {
		l := &links[n]
		r := &t.records[l.endpoint]
		path := t.path(r)
		if r.prefix {
			segments := routetable.Segments(string(path))
			h := &hosts[l.host]
			h.depths |= 1 << min(segments, lastDepth)
			h.deepest = max(h.deepest, uint16(segments))
		}
		hash := placeHash(path, l.host, r.prefix)
		i, found := t.findPlace(hash, path, l.host, r.prefix)
		if found {
			l.next = x.places.cells[i].number
			if links[l.next-1].next == 0 {
				crowded = append(crowded, i)
			}
		}
		x.places.cells[i] = cell{uint32(hash), uint32(n + 1)}
	}
	for _, i := range crowded {
		alike = append(alike, t.sortPlace(&x.places.cells[i])...)
	}
	slices.Sort(alike)
	return slices.Compact(alike)
}

// sortPlace brings the links of a place into their order, and returns the
// endpoints that have a number of conditions in common with another one.
func (t *Table) sortPlace(at *cell) (alike []int) {
	x := &t.index
	var chain []uint32
	for n := at.number; n != 0; n = x.links[n-1].next {
		chain = append(chain, n)
	}
	conditions := func(n uint32) uint32 { return t.records[x.links[n-1].endpoint].conditions }
	// Links are numbered in the order of the endpoints.
	slices.SortFunc(chain, func(a, b uint32) int { return cmp.Or(cmp.Compare(conditions(b), conditions(a)), cmp.Compare(a, b)) })
	last := &at.number
	for i, n := range chain {
		*last = n
		last = &x.links[n-1].next
		if i > 0 && conditions(chain[i-1]) == conditions(n) || i+1 < len(chain) && conditions(chain[i+1]) == conditions(n) {
			alike = append(alike, int(x.links[n-1].endpoint))
		}
	}
	*last = 0
	return alike
}

func (t *Table) path(r *record) []byte { return t.encoded[r.path : r.path+uint32(r.pathSize)] }

func (t *Table) hostText(h *host) []byte { return t.encoded[h.start : h.start+uint32(h.size)] }

// findHost returns the number of a host pattern: an exact host, or the suffix of
// a wildcard.
func (t *Table) findHost(text []byte, wildcard bool) (number uint32, ok bool) {
	x := &t.index
	hash := hostHash(text)
	for i := x.hostNumbers.first(hash); ; i = x.hostNumbers.next(i) {
		c := x.hostNumbers.cells[i]
		if c.number == 0 {
			return 0, false
		}
		if c.hash == uint32(hash) {
			if h := &x.hosts[c.number-1]; h.wildcard == wildcard && string(t.hostText(h)) == string(text) {
				return c.number - 1, true
			}
		}
	}
}

// findPlace returns the cell of a place, or the free one where it belongs. hash
// is its placeHash.
func (t *Table) findPlace(hash uint64, path []byte, host uint32, prefix bool) (at int, found bool) {
	x := &t.index
	for i := x.places.first(hash); ; i = x.places.next(i) {
		c := x.places.cells[i]
		if c.number == 0 {
			return i, false
		}
		if c.hash == uint32(hash) {
			l := &x.links[c.number-1]
			if r := &t.records[l.endpoint]; l.host == host && r.prefix == prefix && string(t.path(r)) == string(path) {
				return i, true
			}
		}
	}
}
