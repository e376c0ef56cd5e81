package table

import (
	"math/bits"
	"sync/atomic"
)

// Policy is how a member is chosen.
type Policy uint8

// The policies.
const (
	RoundRobin     Policy = iota // by smooth weighted round robin, exactly, over all goroutines
	LeastRequest                 // of two at random by weights the one with fewer requests in flight
	Random                       // at random by weights
	ConsistentHash               // by a hash of a key of the request
)

// view is the members of a pool that get requests, and how they are chosen. It is
// immutable but for the turns, which the views of a pool share.
type view struct {
	all     []*Member // of the pool, usable or not
	members []*Member
	// schedule is one cycle, as indices of members; nil when that is members, because
	// all have one weight. It serves policies that draw lots as well: who has a share
	// of the slots has that share of the chances.
	schedule []uint32
	turns    *atomic.Uint64 // taken so far
	limited  bool           // members may be full
	policy   Policy
	// panicking: nobody is usable.
	panicking bool
	weights   []uint32 // of members; nil when all are one
	lookup    []uint32 // indices of members by hash; for ConsistentHash
}

// choose chooses a member. again is 0 for the first choice of a request, and then
// counts.
func (v *view) choose(c *Choice, again uint64) *Member {
	switch v.policy {
	case RoundRobin:
		return v.next()
	case LeastRequest:
		return v.lessLoaded(mix(c.Random, again))
	case ConsistentHash:
		if c.Keyed {
			return v.members[v.lookup[part(mix(c.Hash, again), len(v.lookup))]]
		}
	}
	return v.members[v.at(part(mix(c.Random, again), v.slots()))]
}

// next takes the next turn.
func (v *view) next() *Member {
	turn := v.turns.Add(1) - 1
	if v.schedule == nil {
		return v.members[turn%uint64(len(v.members))]
	}
	return v.members[v.schedule[turn%uint64(len(v.schedule))]]
}

func (v *view) slots() int {
	if v.schedule == nil {
		return len(v.members)
	}
	return len(v.schedule)
}

// at returns the member in a slot.
func (v *view) at(slot int) uint32 {
	if v.schedule == nil {
		return uint32(slot)
	}
	return v.schedule[slot]
}

// lessLoaded draws two different members and returns the one that has fewer requests
// in flight for its weight, the first if that is equal.
func (v *view) lessLoaded(random uint64) *Member {
	slots := v.slots()
	slot := part(random, slots)
	i := v.at(slot)
	if len(v.members) == 1 {
		return v.members[i]
	}
	// From a slot that is drawn on, the first of another member.
	slot = (slot + 1 + part(mix(random, 1), slots-1)) % slots
	for v.at(slot) == i {
		slot = (slot + 1) % slots
	}
	j := v.at(slot)
	a, b := v.members[i], v.members[j]
	na, nb := a.Health.State.InFlight(), b.Health.State.InFlight()
	if v.weights != nil {
		na, nb = na*int64(v.weights[j]), nb*int64(v.weights[i])
	}
	if nb < na {
		return b
	}
	return a
}

// another returns the first choice or, if that must not be chosen or is full, another one,
// which is chosen like that of a request of its own, so that not one member gets all that
// another one has failed. After some such choices the first member that may be chosen is.
// When none may that is not full, it stays at the first choice; when all are full there
// is none.
func (v *view) another(first *Member, c *Choice) *Member {
	m := first
	for again := range 2 * (1 + c.Tried.len()) {
		if !c.Tried.Has(m) && !m.Health.Full() {
			return m
		}
		m = v.choose(c, uint64(again)+1)
	}
	from := part(c.Random^c.Hash, len(v.members))
	if v.policy == RoundRobin {
		from = int(v.turns.Load() % uint64(len(v.members)))
	}
	var tried *Member
	for i := range v.members {
		m := v.members[(from+i)%len(v.members)]
		switch {
		case m.Health.Full():
		case !c.Tried.Has(m):
			return m
		case tried == nil || m == first:
			tried = m
		}
	}
	return tried
}

// mix returns bits as random as those of x, others for each n; x itself for 0.
func mix(x, n uint64) uint64 {
	if n == 0 {
		return x
	}
	// The finalizer of SplitMix64.
	x += n * 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// part returns a number from 0 to n-1, by the upper bits of x.
func part(x uint64, n int) int {
	hi, _ := bits.Mul64(x, uint64(n))
	return int(hi)
}
