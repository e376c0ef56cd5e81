package table

import (
	"cmp"
	"slices"

	"github.com/cespare/xxhash/v2"

	"reverseproxy/proto/routetable"
)

// Key is the property of a request that ConsistentHash hashes.
type Key struct {
	Kind KeyKind
	Name string // of a header field, in lower case, or of a cookie
}

// KeyKind is a kind of property.
type KeyKind uint8

// The kinds.
const (
	NoKey KeyKind = iota
	ClientIP
	Header
	Cookie
	Path // in normal form
)

// Hash hashes a key, in the same way on every data plane.
func Hash(key []byte) uint64 { return xxhash.Sum64(key) }

// The sizes of lookup tables, primes. The small one takes 64 KiB and gives each of 163
// members with one weight its share within 1 %; the large one takes 1 MiB. Another size
// moves nearly all keys, so there are only two.
const (
	smallTable = 16381
	largeTable = 262139
	smallPool  = 1000 // most members of a small table
)

// lookup returns which member has which part of the hashes: a Maglev table (Eisenbud
// et al., 2016). Each member has a permutation of the cells, which follows from its
// URL and address alone; in turn, and as often as its weight says, each takes the next
// cell of its own that is free. So a member more or less moves little more than its
// share, and every data plane makes the same table, in whichever order it knows the
// members.
func lookup(members []*Member, weights []uint32) []uint32 {
	if len(members) == 0 {
		return nil
	}
	size := uint64(smallTable)
	if len(members) > smallPool {
		size = largeTable
	}
	order := make([]int, len(members))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(members[a].URL, members[b].URL), cmp.Compare(members[a].Health.State.Addr(), members[b].Health.State.Addr()))
	})
	type permutation struct {
		member     uint32
		cell, skip uint64
	}
	next := make([]permutation, len(members))
	sorted := make([]uint32, len(members))
	for turn, i := range order {
		var d xxhash.Digest
		d.Reset()
		_, _ = d.WriteString(members[i].URL)
		_, _ = d.WriteString("\n" + members[i].Health.State.Addr())
		sum := d.Sum64()
		next[turn] = permutation{uint32(i), sum % size, 1 + mix(sum, 1)%(size-1)}
		sorted[turn] = weights[i]
	}
	turns := routetable.Schedule(sorted)
	const free = 1<<32 - 1
	cells := make([]uint32, size)
	for i := range cells {
		cells[i] = free
	}
	for taken := range cells {
		p := &next[turns[taken%len(turns)]]
		for cells[p.cell] != free {
			if p.cell += p.skip; p.cell >= size {
				p.cell -= size
			}
		}
		cells[p.cell] = p.member
	}
	return cells
}
