package table

import "sync/atomic"

// Pool hands out backends by smooth weighted round robin, exactly, over all
// goroutines. It is immutable but for its cursor, which a pool of the next table
// shares when nothing about the pool has changed.
type Pool struct {
	Backends []*Backend // in the order of the file

	taking   []*Backend // those whose weight is not 0
	schedule []uint32   // indices of Backends; nil when all that take have one weight
	cursor   *atomic.Uint64
}

// Next returns the next backend of the schedule, nil when every weight is 0.
func (p *Pool) Next() *Backend {
	if len(p.taking) == 0 {
		return nil
	}
	k := p.cursor.Add(1) - 1
	if p.schedule != nil {
		return p.Backends[p.schedule[k%uint64(len(p.schedule))]]
	}
	return p.taking[k%uint64(len(p.taking))]
}

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
