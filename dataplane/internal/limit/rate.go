package limit

import (
	"hash/maphash"
	"math"
	"sync/atomic"
	"time"
)

// Fleet is how many data planes there are to share a rate. The zero value is one.
// Any goroutine may use it.
type Fleet struct{ others atomic.Int64 }

// maxFleet keeps the sums of times from overflowing.
const maxFleet = 100_000

// Set tells the number of data planes, this one included.
func (f *Fleet) Set(n uint32) { f.others.Store(int64(min(max(n, 1), maxFleet)) - 1) }

// Size returns the number of data planes, at least 1.
func (f *Fleet) Size() int64 { return f.others.Load() + 1 }

// Rule is a rate: so many requests in a time, and so many at once.
type Rule struct {
	Requests, Burst uint32 // at least 1
	Per             time.Duration
}

// Rate allows requests at a rate, of all together or of each key, as far as this
// data plane has a share in it. Any goroutine may use it; nothing locks.
//
// It is the generic cell rate algorithm (ITU-T I.371): all that is known is the time
// at which, at a steady rate, everything allowed so far would have come. A request
// is early by what that time lies ahead, and may be early by what the burst takes.
type Rate struct {
	// interval is the time for one request of the whole fleet, burst the time for a
	// burst: the data plane's own share of the burst takes n times as long each, so
	// as long together.
	interval, burst int64
	fleet           *Fleet
	all             atomic.Int64 // the time, of requests without a key

	seed  maphash.Seed
	cells atomic.Pointer[cells] // made when the first key comes
}

// NewRate returns a rate that nothing has been taken from.
func NewRate(r Rule, f *Fleet) *Rate {
	interval := max(int64(r.Per)/int64(r.Requests), 1)
	burst := int64(math.MaxInt64 / 4)
	if int64(r.Burst) < burst/interval {
		burst = int64(r.Burst) * interval
	}
	return &Rate{interval: interval, burst: burst, fleet: f, seed: maphash.MakeSeed()}
}

// Take takes one request at a moment, in nanoseconds from any start. It returns 0
// when the request is allowed, else the time until one is.
func (r *Rate) Take(now int64) time.Duration { return r.take(&r.all, now) }

// TakeOf is Take of the requests with a key, of which only the hash is known.
func (r *Rate) TakeOf(key uint64, now int64) time.Duration {
	c := r.cells.Load()
	if c == nil {
		r.cells.CompareAndSwap(nil, new(cells))
		c = r.cells.Load()
	}
	return r.take(c.find(key, now), now)
}

// Hash returns the hash of a key, which nobody outside can foretell.
func (r *Rate) Hash(key []byte) uint64 { return maphash.Bytes(r.seed, key) }

// HashString is Hash.
func (r *Rate) HashString(key string) uint64 { return maphash.String(r.seed, key) }

func (r *Rate) take(at *atomic.Int64, now int64) time.Duration {
	interval := r.interval * r.fleet.Size()
	early := max(r.burst-interval, 0) // how early the last of a burst is
	for {
		before := at.Load()
		if wait := before - early - now; wait > 0 {
			return time.Duration(wait)
		}
		if at.CompareAndSwap(before, max(before, now)+interval) {
			return 0
		}
	}
}

// cells has the times of keys, of a bounded number: 16,384 in 256 KiB. A key has its
// cell in one set. One that has none gets the cell whose time is the lowest: nearly
// always one whose time has passed, which says no more than a new one. If all of a
// set lie ahead, the one whose key had taken the least is forgotten.
//
// A key and its time are not changed in one step. If a cell changes hands, or a new
// key comes twice, at the very same moment on two loops, one request is counted for
// the wrong key.
type cells [sets][ways]cell

const (
	sets = 2048
	ways = 8
)

type cell struct {
	key  atomic.Uint64 // 0: none yet
	time atomic.Int64
}

// find returns the time of a key.
func (c *cells) find(key uint64, now int64) *atomic.Int64 {
	key = max(key, 1)
	set := &c[key%sets]
	for {
		var (
			oldest *cell
			of     uint64
			lowest int64
		)
		for i := range set {
			cell := &set[i]
			k := cell.key.Load()
			if k == key {
				return &cell.time
			}
			if t := cell.time.Load(); oldest == nil || t < lowest {
				oldest, of, lowest = cell, k, t
			}
		}
		if !oldest.key.CompareAndSwap(of, key) {
			continue
		}
		if lowest > now {
			oldest.time.CompareAndSwap(lowest, now)
		}
		return &oldest.time
	}
}
