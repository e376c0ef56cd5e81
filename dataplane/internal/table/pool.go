package table

import "sync/atomic"

// Pool hands out backends by smooth weighted round robin, exactly, over all
// goroutines. It is immutable but for its cursor, which a pool of the next table
// shares when nothing about the pool has changed.
type Pool struct {
	Backends []*Backend // in the order of the file; at least one

	// schedule has the backends of one cycle; nil when that is Backends, because
	// all have one weight. Pools with the same weights share it.
	schedule *[]uint32
	cursor   *atomic.Uint64
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
