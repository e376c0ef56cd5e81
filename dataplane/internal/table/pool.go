package table

import (
	"encoding/binary"
	"slices"
	"sync"
	"sync/atomic"

	"reverseproxy/dataplane/internal/backend"
	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// Pool chooses who gets a request: one of its members, by smooth weighted round
// robin, exactly, over all goroutines. The endpoint of the next table shares it when
// nothing about the pool has changed.
//
// What Pick looks at is a view, which is immutable: who wants it changed changes
// something about a member and calls Refresh, which makes another one.
type Pool struct {
	Backends []*Backend // in the order of the file; at least one

	members []*Member // of all backends, in their order
	// cycle is the schedule of all members whose weight is not 0; nil when they take
	// turns, because all have one weight. Pools with the same weights share it.
	cycle *[]uint32

	refreshing sync.Mutex // held while a view is made
	view       atomic.Pointer[view]
}

// Member is a backend at one address.
type Member struct {
	*Backend
	Health *backend.Member
}

// Choice is what choosing a member for one request goes by. It is used by one
// goroutine at a time.
type Choice struct {
	// Tried are members that are not to be chosen again while others are left; nil:
	// there are none.
	Tried *Tried
}

// Tried are the members that a request has been given to, whatever has become of
// their table. The zero value is none.
type Tried struct{ members []*backend.Member }

// Add adds a member.
func (t *Tried) Add(m *Member) { t.members = append(t.members, m.Health) }

// Clear takes all out again.
func (t *Tried) Clear() {
	clear(t.members)
	t.members = t.members[:0]
}

func (t *Tried) has(m *Member) bool { return t != nil && slices.Contains(t.members, m.Health) }

// Begin counts a request that is given to the member, End one that has been answered
// or has failed, both by the owner of a shard of the metrics.
func (m *Member) Begin(shard int) {
	m.Health.State.Begin()
	m.Metrics.Begin(shard)
}

// End is the counterpart of Begin.
func (m *Member) End(shard int) {
	m.Health.State.End()
	m.Metrics.End(shard)
}

// Members returns all members, usable or not, in the order of the file. Nobody may
// change the slice.
func (p *Pool) Members() []*Member { return p.members }

// Pick chooses a member for a request, nil when there is none that may get one. It
// neither allocates nor locks. Any goroutine may call it.
func (p *Pool) Pick(c *Choice) *Member {
	v := p.view.Load()
	if len(v.members) == 0 {
		return nil
	}
	m := v.next()
	if c.Tried == nil {
		return m
	}
	return v.another(m, c)
}

// view is the members of a pool that get requests, and in which order. It is
// immutable but for the turns, which the views of a pool share.
type view struct {
	members []*Member
	// schedule is one cycle, as indices of members; nil when that is members.
	schedule []uint32
	turns    *atomic.Uint64 // taken so far
}

// next takes the next turn.
func (v *view) next() *Member {
	turn := v.turns.Add(1) - 1
	if v.schedule == nil {
		return v.members[turn%uint64(len(v.members))]
	}
	return v.members[v.schedule[turn%uint64(len(v.schedule))]]
}

// another returns the first choice or, if that must not be chosen, another one.
// Turns are taken for it as for a request of its own, so that not one member gets
// all that another one has failed; after some, the first member that may be chosen
// is. When none may, it stays at the first choice.
func (v *view) another(first *Member, c *Choice) *Member {
	m := first
	for range 2 * len(c.Tried.members) {
		if !c.Tried.has(m) {
			return m
		}
		m = v.next()
	}
	for _, m := range v.members {
		if !c.Tried.has(m) {
			return m
		}
	}
	return first
}

// Refresh looks at the members anew. Whoever has changed something about one calls
// it; any goroutine may, but none on the request path.
func (p *Pool) Refresh() {
	p.refreshing.Lock()
	defer p.refreshing.Unlock()
	p.view.Store(p.look(p.view.Load().turns))
}

// look makes a view of the members as they are.
func (p *Pool) look(turns *atomic.Uint64) *view {
	v := &view{members: p.eligible(), turns: turns}
	weights := make([]uint32, len(v.members))
	for i, m := range v.members {
		weights[i] = m.Weight
	}
	switch {
	case uniform(weights):
	case len(v.members) == len(p.those(drawn)):
		v.schedule = *p.cycle
	default:
		v.schedule = routetable.Schedule(weights)
	}
	return v
}

// eligible returns the members that may get requests: those that are usable, or all
// when none is.
func (p *Pool) eligible() []*Member {
	if members := p.those(func(m *Member) bool { return drawn(m) && m.Health.Usable() }); len(members) > 0 {
		return members
	}
	return p.those(drawn)
}

// drawn reports whether a member takes part at all: with a weight of 0 it does not.
func drawn(m *Member) bool { return m.Weight > 0 }

// those returns the members that fit, in their order.
func (p *Pool) those(fit func(*Member) bool) []*Member {
	misfit := func(m *Member) bool { return !fit(m) }
	if !slices.ContainsFunc(p.members, misfit) {
		return p.members
	}
	return slices.DeleteFunc(slices.Clone(p.members), misfit)
}

// same reports whether the pool has the same URLs and weights in the same order.
func (p *Pool) same(other *Pool) bool {
	return slices.EqualFunc(p.Backends, other.Backends, func(b, o *Backend) bool {
		return b.URL == o.URL && b.Weight == o.Weight
	})
}

// cycles has the schedules of pools by their weights, without those of 0: many
// pools of a table have the same.
type cycles map[string]*[]uint32

// add makes the schedule that a pool needs.
func (c cycles) add(pool []*routetablev1.Backend) {
	var few [16]uint32
	weights := appendWeights(few[:0], pool)
	if uniform(weights) || c.of(weights) != nil {
		return
	}
	cycle := routetable.Schedule(weights)
	c[string(appendKey(nil, weights))] = &cycle
}

// of returns a schedule, nil when every one takes its turn.
func (c cycles) of(weights []uint32) *[]uint32 {
	if uniform(weights) {
		return nil
	}
	var few [64]byte
	return c[string(appendKey(few[:0], weights))]
}

// appendWeights appends the weights of a pool, without those of 0.
func appendWeights(weights []uint32, pool []*routetablev1.Backend) []uint32 {
	for _, b := range pool {
		if w := b.GetWeight(); w > 0 {
			weights = append(weights, w)
		}
	}
	return weights
}

// uniform reports whether all weights are equal.
func uniform(weights []uint32) bool {
	for _, w := range weights {
		if w != weights[0] {
			return false
		}
	}
	return true
}

func appendKey(key []byte, weights []uint32) []byte {
	for _, w := range weights {
		key = binary.BigEndian.AppendUint32(key, w)
	}
	return key
}
