package table

import (
	"encoding/binary"
	"sync/atomic"

	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// Pool hands out backends by smooth weighted round robin, exactly, over all
// goroutines. It is immutable but for its cursor. The endpoint of the next table
// shares it when nothing about the pool has changed.
type Pool struct {
	Backends []*Backend // in the order of the file; at least one

	// schedule has the backends of one cycle; nil when that is Backends, because
	// all have one weight. Pools with the same weights share it.
	schedule *[]uint32
	cursor   atomic.Uint64
}

// Next returns the next backend of the schedule, nil when every weight is 0.
func (p *Pool) Next() *Backend {
	if p.schedule == nil {
		return p.Backends[p.slot(len(p.Backends))]
	}
	if s := *p.schedule; len(s) > 0 {
		return p.Backends[s[p.slot(len(s))]]
	}
	return nil
}

// slot takes the next slot of a cycle of n.
func (p *Pool) slot(n int) uint64 { return (p.cursor.Add(1) - 1) % uint64(n) }

// same reports whether the pool has the same URLs and weights in the same order.
func (p *Pool) same(other *Pool) bool {
	if len(p.Backends) != len(other.Backends) {
		return false
	}
	for i, b := range p.Backends {
		if o := other.Backends[i]; b.URL != o.URL || b.Weight != o.Weight {
			return false
		}
	}
	return true
}

// cycles has the schedules of pools by their weights: many pools of a table have
// the same.
type cycles map[string]*[]uint32

// add makes the schedule that a pool needs.
func (c cycles) add(pool []*routetablev1.Backend) {
	if uniform(pool) || c.of(pool) != nil {
		return
	}
	weights := make([]uint32, len(pool))
	for i, b := range pool {
		weights[i] = b.GetWeight()
	}
	cycle := routetable.Schedule(weights)
	c[string(weightsKey(nil, pool))] = &cycle
}

// of returns the schedule of a pool, nil when the pool itself is one.
func (c cycles) of(pool []*routetablev1.Backend) *[]uint32 {
	if uniform(pool) {
		return nil
	}
	var few [64]byte
	return c[string(weightsKey(few[:0], pool))]
}

// uniform reports whether all weights are equal, and not 0.
func uniform(pool []*routetablev1.Backend) bool {
	for _, b := range pool {
		if w := b.GetWeight(); w == 0 || w != pool[0].GetWeight() {
			return false
		}
	}
	return true
}

func weightsKey(key []byte, pool []*routetablev1.Backend) []byte {
	for _, b := range pool {
		key = binary.BigEndian.AppendUint32(key, b.GetWeight())
	}
	return key
}
