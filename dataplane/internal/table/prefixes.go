package table

import (
	"net/netip"
	"slices"
	"sort"
	"sync/atomic"
)

// Prefixes is a set of addresses, given by prefixes. It is immutable; any goroutine
// may use it.
type Prefixes struct {
	// Number tells the sets of a process apart; it is not 0.
	Number uint32
	ranges []addresses // ascending; none touches another
}

// sets counts the sets that were made.
var sets atomic.Uint32

// addresses are those of one family from first to last.
type addresses struct{ first, last netip.Addr }

// newPrefixes returns the set of valid prefixes, nil when there are none.
func newPrefixes(list []string) *Prefixes {
	if len(list) == 0 {
		return nil
	}
	ranges := make([]addresses, len(list))
	for i, s := range list {
		p := netip.MustParsePrefix(s)
		ranges[i] = addresses{p.Addr(), lastOf(p)}
	}
	slices.SortFunc(ranges, func(a, b addresses) int { return a.first.Compare(b.first) })
	joined := ranges[:1]
	for _, r := range ranges[1:] {
		switch before := &joined[len(joined)-1]; {
		case before.last.Compare(r.last) >= 0: // prefixes contain one another, or do not meet
		case before.last.Next() == r.first:
			before.last = r.last
		default:
			joined = append(joined, r)
		}
	}
	return &Prefixes{sets.Add(1), slices.Clip(joined)}
}

// lastOf returns the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(b)
	return last
}

// Contains reports whether a, which is no IPv4 address in the form of an IPv6 one,
// is in the set.
func (p *Prefixes) Contains(a netip.Addr) bool {
	i := sort.Search(len(p.ranges), func(i int) bool { return p.ranges[i].last.Compare(a) >= 0 })
	return i < len(p.ranges) && p.ranges[i].first.Compare(a) <= 0
}
