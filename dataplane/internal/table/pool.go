package table

import (
	"encoding/binary"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"reverseproxy/dataplane/internal/backend"
	"reverseproxy/dataplane/internal/metrics"
	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// Pool chooses who gets a request: one of its members, by the endpoint's policy. The
// endpoint of the next table shares it when nothing about the pool has changed.
//
// What Pick looks at is a view, which is immutable: who wants it changed changes
// something about a member and calls Refresh, which makes another one.
type Pool struct {
	Backends []*Backend // in the order of the file; at least one
	// Policy is how members are chosen, Key what the policy ConsistentHash hashes.
	Policy Policy
	Key    Key
	refuse bool // nobody gets a request when nobody is usable
	// slowStart is how long the share of a member that comes back grows.
	slowStart time.Duration

	endpoint string
	state    *State
	metrics  *metrics.Endpoint
	names    bool      // a backend has a name that is looked up
	members  []*Member // of all backends, in their order; guarded by refreshing
	// cycle is the schedule of all members whose weight is not 0; nil when they take
	// turns, because all have one weight. Pools with the same weights share it.
	cycle *[]uint32

	refreshing sync.Mutex // held while a view is made
	view       atomic.Pointer[view]

	watch watch
}

// Member is a backend at one address.
type Member struct {
	*Backend
	Health *backend.Member
}

// Choice is what choosing a member for one request goes by. It is used by one
// goroutine at a time.
type Choice struct {
	Random uint64 // random bits of this request; not for RoundRobin
	Hash   uint64 // of the key, see Hash; for ConsistentHash
	Keyed  bool   // there is a key; a request without one goes to anybody
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

// Has reports whether a member is among them.
func (t *Tried) Has(m *Member) bool { return t != nil && slices.Contains(t.members, m.Health) }

func (t *Tried) len() int {
	if t == nil {
		return 0
	}
	return len(t.members)
}

// TryBegin counts a request that is given to the member unless that is full, and
// reports whether it was not; End counts one that has been answered or has failed. Both
// are for the owner of a shard of the metrics.
func (m *Member) TryBegin(shard int) bool {
	if !m.Take() {
		return false
	}
	m.Metrics.Begin(shard)
	return true
}

// Take is TryBegin without the metrics, and for any goroutine.
func (m *Member) Take() bool {
	if m.MaxRequests == 0 {
		// While tables change, it may have the limit of another one for a moment, at
		// which Pick does not look when nobody in the pool has one: it must not be
		// picked and refused without end.
		m.Health.State.Begin()
		return true
	}
	return m.Health.TryBegin()
}

// Begin is TryBegin of a request that has a place in the member already and gives that
// up next.
func (m *Member) Begin(shard int) {
	m.Health.State.Begin()
	m.Metrics.Begin(shard)
}

// End is the counterpart of TryBegin.
func (m *Member) End(shard int) {
	m.Health.State.End()
	m.Metrics.End(shard)
}

// Members returns all members, usable or not, in the order of the file. Nobody may
// change the slice.
func (p *Pool) Members() []*Member { return p.view.Load().all }

// HasNames reports whether a backend has a name that is looked up.
func (p *Pool) HasNames() bool { return p.names }

// Pick chooses a member for a request, nil when there is none that may get one, or all
// are full (see Full). It neither allocates nor locks. Any goroutine may call it.
func (p *Pool) Pick(c *Choice) *Member {
	v := p.view.Load()
	if len(v.members) == 0 {
		return nil
	}
	m := v.choose(c, 0)
	if c.Tried == nil && !v.limited {
		return m
	}
	return v.another(m, c)
}

// Unhealthy reports that a request is refused for no other reason than that no
// member is usable.
func (p *Pool) Unhealthy() bool { return p.refuse && p.view.Load().panicking }

// Limited reports whether members may be full.
func (p *Pool) Limited() bool { return p.view.Load().limited }

// Full tells, after Pick has found nobody, that this is only because all members are
// full.
func (p *Pool) Full() bool {
	v := p.view.Load()
	return v.limited && len(v.members) > 0
}

// Again returns the member of the pool that is the same as m, which may be of another
// table, if it gets requests and is only passed over because all are full; else nil.
func (p *Pool) Again(m *Member) *Member {
	if v := p.view.Load(); v.limited {
		for _, other := range v.members {
			if other.Health == m.Health {
				return other
			}
		}
	}
	return nil
}

// Unresolved reports that a request is refused for no other reason than that the
// names of backends have not been found.
func (p *Pool) Unresolved() bool {
	unresolved := func(b *Backend) bool { return b.Weight > 0 && len(b.addresses()) == 0 }
	return p.names && !slices.ContainsFunc(p.Members(), drawn) && slices.ContainsFunc(p.Backends, unresolved)
}

// Refresh looks at the members anew. Whoever has changed something about one calls
// it; any goroutine may, but none on the request path.
func (p *Pool) Refresh() {
	p.refreshing.Lock()
	defer p.refreshing.Unlock()
	if p.names {
		p.gather(p.members, true)
	}
	p.view.Store(p.look(p.view.Load().turns))
	p.watch.changed(p)
	// Requests that had the table from before still go by a pool that has been
	// replaced, but what it sees is no news.
	if p.state.uses(p) {
		p.tell()
	}
}

// tell makes known whether nobody is usable.
func (p *Pool) tell() {
	panicking := p.view.Load().panicking
	if p.metrics.Panic(panicking) && p.state.OnPanic != nil {
		p.state.OnPanic(p.endpoint, panicking, p.refuse)
	}
}

// gather makes the members anew: one for each address of each backend. Those of the
// same URL and address as a known one stay what they are. inUse: there have been
// requests, so that one which had none comes back.
func (p *Pool) gather(known []*Member, inUse bool) {
	before := make(map[identity]*Member, len(known))
	for _, m := range known {
		before[m.identity()] = m
	}
	members := make([]Member, 0, len(p.Backends))
	for _, b := range p.Backends {
		own := make([]*backend.Member, 0, 1)
		// The first addresses of a name take the place of the name as such: they do
		// not come back.
		unresolved := b.Name != nil && before[identity{b.URL, b.address}] != nil
		for _, address := range b.addresses() {
			id := identity{b.URL, address}
			was := before[id]
			m := Member{Backend: b}
			if was != nil {
				m.Health = was.Health
			} else {
				m.Health = backend.NewMember(p.state.Backends.State(address))
				m.Health.SetMost(int64(b.MaxRequests))
				before[id] = &m
			}
			if inUse && (was == nil && !unresolved || was != nil && !drawn(was)) {
				m.Health.ComeBack()
			}
			members = append(members, m)
			own = append(own, m.Health)
		}
		b.Metrics.Track(own)
	}
	p.members = make([]*Member, len(members))
	for i := range members {
		p.members[i] = &members[i]
	}
}

// look makes a view of the members as they are.
func (p *Pool) look(turns *atomic.Uint64) *view {
	v := &view{policy: p.Policy, turns: turns, all: p.members}
	v.members, v.panicking = p.eligible()
	v.limited = slices.ContainsFunc(v.members, func(m *Member) bool { return m.MaxRequests > 0 })
	weights, growing := p.weigh(v.members)
	if !uniform(weights) {
		v.weights = weights
		if !p.names && !growing && len(v.members) == len(p.those(drawn)) {
			v.schedule = *p.cycle
		} else {
			v.schedule = routetable.Schedule(weights)
		}
	}
	if p.Policy == ConsistentHash {
		v.lookup = lookup(v.members, weights)
	}
	return v
}

// weigh returns the weights of members, and whether some are less than they will be:
// then in tenths, or something coarser where the schedule would become too long.
func (p *Pool) weigh(members []*Member) (weights []uint32, growing bool) {
	weights = make([]uint32, len(members))
	var next time.Duration
	for i, m := range members {
		share, grows := m.Health.Share(p.slowStart)
		weights[i] = m.Weight * share
		if grows > 0 && (next == 0 || grows < next) {
			next = grows
		}
	}
	if growing = next > 0; growing {
		p.state.Backends.RefreshLater(p, next)
		for routetable.Slots(weights) > routetable.MaxSlots {
			halve(weights)
		}
		return weights, growing
	}
	for i := range weights {
		weights[i] /= backend.Whole
	}
	return weights, growing
}

// halve halves weights, but leaves everybody something.
func halve(weights []uint32) {
	for i, w := range weights {
		weights[i] = max(w/2, 1)
	}
}

// eligible returns the members that may get requests: of those that are usable the
// backups only when there is nobody else. When nobody is usable it is as if all were,
// or nobody at all.
func (p *Pool) eligible() (members []*Member, panicking bool) {
	usable := func(m *Member) bool { return drawn(m) && m.Health.Usable() }
	if members = p.first(usable); len(members) > 0 {
		return members, false
	}
	members = p.first(drawn)
	panicking = len(members) > 0
	if p.refuse {
		members = nil
	}
	return members, panicking
}

// first returns the members that fit: the backups only when there is nobody else.
func (p *Pool) first(fit func(*Member) bool) []*Member {
	if members := p.those(func(m *Member) bool { return fit(m) && !m.Backup }); len(members) > 0 {
		return members
	}
	return p.those(fit)
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

// same reports whether two pools are the same in everything: settings, and backends
// in their order.
func (p *Pool) same(other *Pool) bool {
	return p.Policy == other.Policy && p.Key == other.Key && p.refuse == other.refuse && p.slowStart == other.slowStart &&
		slices.EqualFunc(p.Backends, other.Backends, func(b, o *Backend) bool {
			return b.URL == o.URL && b.Weight == o.Weight && b.Backup == o.Backup && b.MaxRequests == o.MaxRequests
		})
}

// sameCycle reports whether two pools have the same URLs and weights in the same
// order: who is next in one is next in the other.
func (p *Pool) sameCycle(other *Pool) bool {
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
