// Package sample chooses requests at random, so that what they look like can be told:
// method, host and path, and which endpoint took them. Never the query, and no header
// field but Host.
//
// Each event loop has a Shard. It offers every request; the shard keeps up to Most of
// them since the last Take, each request with the same chance, and does next to nothing
// for those that it does not keep. Take, from any goroutine, gets what all shards have
// kept. Nothing is allocated for a request, and no loop waits for Take.
package sample

import (
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"reverseproxy/proto/routetable"
)

const (
	// Most is how many samples one Take returns at most.
	Most = 100
	// maxText is the longest sum of method, host and path. What is longer is not
	// sampled.
	maxText = routetable.MaxSamplePath + 128
)

// Sample is one request that stands for Weight of them.
type Sample struct {
	Method, Host, Path string // Host in lower case without a port, Path in normal form
	Endpoint           string // empty: none took it
	Weight             float64
}

// Set is the shards of all loops.
type Set struct {
	shards []Shard

	mu    sync.Mutex // held by Take; guards taken
	taken []uint64   // what answered was at the last Take that returned samples
}

// New returns a set with a shard for each loop, 65 KiB each.
func New(shards int) *Set {
	s := &Set{shards: make([]Shard, shards), taken: make([]uint64, shards)}
	for i := range s.shards {
		s.shards[i].slots = make([]slot, Most)
		s.shards[i].round.Store(1) // so that its owner starts
	}
	return s
}

// Shard returns the shard of a loop; nil when s is.
func (s *Set) Shard(i int) *Shard {
	if s == nil {
		return nil
	}
	return &s.shards[i]
}

// Shard keeps the samples of one loop. Due and Add are for its owner.
type Shard struct {
	// Of the owner. It is Vitter's algorithm R with the skips of Li's algorithm L: how
	// many requests pass until the next one is kept is drawn at once.
	skip  int     // how many more requests pass
	w     float64 // of algorithm L
	began uint32  // the round that these belong to

	_ [64]byte // what the loop writes for each request is on a line of its own

	// round grows with every Take, so that the owner starts over.
	round atomic.Uint32

	mu    sync.Mutex // guards the slots; the owner never waits for it
	used  int
	slots []slot
}

// slot is a sample without pointers into anything that goes.
type slot struct {
	endpoint     string
	text         [maxText]byte // method, host, path
	method, host uint8
	path         uint16
}

// Due takes note of a request and reports whether it is to be kept.
func (s *Shard) Due() bool {
	s.skip--
	return s.skip < 0 || s.began != s.round.Load()
}

// Add keeps a request that is due: the Host field or authority as it came, the path in
// normal form. One that is too long, or that comes while Take looks at the slots, is
// left out, and the next one is due.
func (s *Shard) Add(method, authority, path []byte, endpoint string) {
	host := routetable.TrimHost(authority)
	if len(path) > routetable.MaxSamplePath || len(method) > math.MaxUint8 || len(method)+len(host)+len(path) > maxText {
		return
	}
	if !s.mu.TryLock() {
		return
	}
	defer s.mu.Unlock()
	if round := s.round.Load(); s.began != round {
		s.began, s.w, s.used = round, 1, 0
	}
	to := &s.slots[s.place()]
	to.endpoint = endpoint
	text := append(to.text[:0], method...)
	text = routetable.AppendLower(text, host)
	_ = append(text, path...)
	to.method, to.host, to.path = uint8(len(method)), uint8(len(host)), uint16(len(path))
}

// place returns the slot for one more request, and draws how many pass after it.
func (s *Shard) place() (i int) {
	if s.used < Most {
		i = s.used
		s.used++
		if s.skip = 0; s.used < Most {
			return i
		}
	} else {
		i = rand.IntN(Most)
	}
	s.w *= math.Exp(math.Log(uniform()) / Most)
	s.skip = int(min(math.Log(uniform())/math.Log1p(-s.w), 1<<40))
	return i
}

// uniform returns a random number above 0 and below 1.
func uniform() float64 { return (float64(rand.Uint64()>>12) + 0.5) / (1 << 52) }

// take returns what the shard has kept, and starts over.
func (s *Shard) take() []Sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	to := make([]Sample, 0, s.used)
	for i := range s.slots[:s.used] {
		from := &s.slots[i]
		text := string(from.text[:int(from.method)+int(from.host)+int(from.path)])
		host, path := int(from.method), int(from.method)+int(from.host)
		to = append(to, Sample{Method: text[:host], Host: text[host:path], Path: text[path:], Endpoint: from.endpoint})
		from.endpoint = "" // it may leave the route table
	}
	s.used = 0
	s.round.Add(1)
	return to
}

// Take returns at most Most samples of the requests since the last Take. answered is
// how many requests each loop has answered since the start: the weights add up to how
// many that are since the last Take that returned any.
func (s *Set) Take(answered []uint64) []Sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all uint64
	for i, n := range answered {
		all += n - s.taken[i]
	}
	if all == 0 {
		return nil // what has been kept is not answered yet
	}
	kept := make([][]Sample, len(s.shards))
	left := make([]uint64, len(s.shards)) // requests that may still be chosen
	var sum uint64
	for i := range s.shards {
		if kept[i] = s.shards[i].take(); len(kept[i]) > 0 {
			left[i] = max(answered[i]-s.taken[i], uint64(len(kept[i])))
			sum += left[i]
		}
	}
	if sum == 0 {
		return nil
	}
	copy(s.taken, answered)
	chosen := make([]Sample, 0, Most)
	for len(chosen) < Most && sum > 0 {
		i := pick(left, sum)
		of := kept[i]
		last := len(of) - 1
		if last < 0 {
			sum -= left[i] // of requests that were not kept
			left[i] = 0
			continue
		}
		left[i]--
		sum--
		n := rand.IntN(len(of))
		chosen = append(chosen, of[n])
		of[n] = of[last]
		kept[i] = of[:last]
	}
	for i := range chosen {
		chosen[i].Weight = float64(all) / float64(len(chosen))
	}
	return chosen
}

// pick draws one of sum requests and returns which shard has it.
func pick(left []uint64, sum uint64) int {
	n := rand.Uint64N(sum)
	i := 0
	for n >= left[i] {
		n -= left[i]
		i++
	}
	return i
}
