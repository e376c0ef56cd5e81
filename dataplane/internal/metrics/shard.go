package metrics

import (
	"strconv"
	"sync/atomic"
	"time"

	"reverseproxy/proto/routetable"
)

// shards is one T per shard, made by the shard's owner when it first needs it.
type shards[T any] struct {
	list atomic.Pointer[[]atomic.Pointer[T]]
}

// of returns the T of a shard; only for its owner.
func (s *shards[T]) of(set *Set, shard int) *T {
	if list := s.list.Load(); list != nil {
		if t := (*list)[shard].Load(); t != nil {
			return t
		}
	}
	return s.create(set, shard)
}

func (s *shards[T]) create(set *Set, shard int) *T {
	list := s.list.Load()
	if list == nil {
		fresh := make([]atomic.Pointer[T], len(set.shards))
		// Owners of other shards may do the same at this moment.
		s.list.CompareAndSwap(nil, &fresh)
		list = s.list.Load()
	}
	t := new(T)
	(*list)[shard].Store(t)
	return t
}

// each calls f for every T there is.
func (s *shards[T]) each(f func(*T)) {
	list := s.list.Load()
	if list == nil {
		return
	}
	for i := range *list {
		if t := (*list)[i].Load(); t != nil {
			f(t)
		}
	}
}

// The methods that are a label value, by number. Zero is any other: the label
// must not be in the client's hands.
var methods = [...]string{"other", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE"}

func methodOf(method string) uint32 {
	for i := 1; i < len(methods); i++ {
		if methods[i] == method {
			return uint32(i)
		}
	}
	return 0
}

// codeLabel returns a status as a label value.
func codeLabel(key uint32) string { return strconv.Itoa(int(key >> methodBits)) }

const methodBits = 4

// keyOf combines a status and a method number. A number that is no status
// becomes 0: what a backend sends must not make series without end.
func keyOf(code int, method uint32) uint32 {
	if code < 100 || code > 999 {
		code = 0
	}
	return uint32(code)<<methodBits | method
}

// codes counts by status and method: an open hash table with one writer. A table
// that is full is replaced by a larger copy; a reader that still looks at the old
// one sees the counts of a moment ago.
type codes struct {
	table atomic.Pointer[[]codeCell]
}

// codeCell is free while key is 0. A key is set once and is the code's plus one.
type codeCell struct {
	key atomic.Uint32
	n   atomic.Uint64
}

func (c *codes) add(code int, method uint32) {
	key := keyOf(code, method) + 1
	if t := c.table.Load(); t != nil {
		if cell := find(*t, key); cell.key.Load() == key {
			add(&cell.n, 1)
			return
		}
	}
	c.grow(key)
}

// grow adds a cell with count 1 for a key that has none.
func (c *codes) grow(key uint32) {
	var old []codeCell
	if t := c.table.Load(); t != nil {
		old = *t
	}
	used := 0
	for i := range old {
		if old[i].key.Load() != 0 {
			used++
		}
	}
	// A quarter stays free, which ends every search soon.
	if t := old; 4*(used+1) <= 3*len(t) {
		cell := find(t, key)
		cell.n.Store(1)
		cell.key.Store(key)
		return
	}
	fresh := make([]codeCell, max(4, 2*len(old)))
	for i := range old {
		if k := old[i].key.Load(); k != 0 {
			cell := find(fresh, k)
			cell.key.Store(k)
			cell.n.Store(old[i].n.Load())
		}
	}
	cell := find(fresh, key)
	cell.n.Store(1)
	cell.key.Store(key)
	c.table.Store(&fresh)
}

// find returns the cell of a key, or the free one where it belongs. The length
// of cells is a power of two and one is free.
func find(cells []codeCell, key uint32) *codeCell {
	mask := uint32(len(cells) - 1)
	for i := key * 0x9e3779b1 >> 16; ; i++ {
		cell := &cells[i&mask]
		if k := cell.key.Load(); k == key || k == 0 {
			return cell
		}
	}
}

// each calls f for every key (see keyOf) and its count.
func (c *codes) each(f func(key uint32, n uint64)) {
	t := c.table.Load()
	if t == nil {
		return
	}
	for i := range *t {
		if key := (*t)[i].key.Load(); key != 0 {
			f(key-1, (*t)[i].n.Load())
		}
	}
}

// Buckets is how many buckets the histograms have.
const Buckets = len(routetable.DurationBounds) + 1

// histogram counts durations; one writer.
type histogram struct {
	buckets [Buckets]atomic.Uint64 // not cumulative; the last is +Inf
	sum     atomic.Uint64          // nanoseconds
}

const histogramSize = (Buckets + 1) * 8

// observe counts a duration and returns its bucket.
func (h *histogram) observe(d time.Duration) (bucket int) {
	d = max(d, 0)
	for bucket < len(routetable.DurationBounds) && d > routetable.DurationBounds[bucket] {
		bucket++
	}
	add(&h.buckets[bucket], 1)
	add(&h.sum, uint64(d))
	return bucket
}
