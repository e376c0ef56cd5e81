package traffic

import (
	"maps"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

const (
	// forgetAfter is how long the totals of a data plane that has left are kept.
	forgetAfter = 15 * time.Minute
	// maxLeft is of how many: strangers may come with ever new ids, and say goodbye.
	maxLeft = 100_000
	// silentAfter is after how much silence the rates of a data plane do not count any
	// more: three heartbeats.
	silentAfter = 15 * time.Second
	// shortest is the shortest time over which a rate is more than noise.
	shortest = 400 * time.Millisecond
)

// Store is what is known of the whole fleet. All methods may be called from several
// goroutines.
type Store struct {
	now       func() time.Time
	processes atomic.Uint64 // seen so far
	room      atomic.Int64  // rows that there may still be, of all sessions
	crowded   atomic.Bool   // some were not kept, for want of room

	mu     sync.RWMutex // guards planes; taken before that of a plane
	planes map[string]*plane

	samples samples
	past    past
}

// New returns an empty store; now is the clock.
func New(now func() time.Time) *Store {
	s := &Store{now: now, planes: map[string]*plane{}}
	s.room.Store(maxRows)
	return s
}

// plane is one data plane, by id.
type plane struct {
	mu       sync.Mutex // guards everything, that of its sessions as well
	sessions []*Session // in the order in which they came
	counters Counters   // the newest; Process 0: it has not told
	// moved is when requests were answered last, sampled when samples came last; zero:
	// never in this process.
	moved, sampled time.Time
}

// Session is one stream of a data plane.
type Session struct {
	store *Store
	plane *plane
	// The rest is guarded by plane.mu.
	closed bool
	base   Counters // since when rate is
	rate   float64  // requests per second
	heard  time.Time
	rows   map[name]row
}

// Session begins a stream of a data plane. Of several with one id the newest one's
// totals count.
func (s *Store) Session(id string) *Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.planes[id]
	if p == nil {
		p = &plane{}
		s.planes[id] = p
	}
	x := &Session{store: s, plane: p}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sessions = append(p.sessions, x)
	return x
}

// Close ends it. It may be called more than once.
func (x *Session) Close() {
	x.plane.mu.Lock()
	defer x.plane.mu.Unlock()
	x.closed, x.rate = true, 0 // Sweep takes what it has counted
}

// Observe takes what a heartbeat that came at a time says about requests.
func (x *Session) Observe(h *routetablev1.Heartbeat, at time.Time) {
	if h.GetTraffic() == nil {
		return
	}
	x.store.samples.add(h.GetSamples(), at)
	x.plane.mu.Lock()
	defer x.plane.mu.Unlock()
	if x.closed {
		return
	}
	x.heard = at
	x.count(countersOf(h, at), len(h.GetSamples()) > 0)
	x.takeRows(h.GetEndpoints())
}

// count takes the totals. The caller holds plane.mu.
func (x *Session) count(c Counters, sampled bool) {
	p := x.plane
	if p.sessions[len(p.sessions)-1] != x {
		return
	}
	switch c.Process = p.counters.Process; {
	case c.Process == 0 || !c.follows(&p.counters):
		c.Process = x.store.processes.Add(1)
		p.moved, p.sampled = time.Time{}, time.Time{}
	case c.Requests > p.counters.Requests:
		p.moved = c.At
	}
	if sampled {
		p.sampled = c.At
	}
	p.counters = c
	switch passed := c.At.Sub(x.base.At); {
	case x.base.Process != c.Process:
		x.base = c
	case passed >= shortest:
		x.rate = float64(c.Requests-x.base.Requests) / passed.Seconds()
		x.base = c
	}
}

// Counters returns the newest totals of a data plane; ok is false when it has not told
// any.
func (s *Store) Counters(id string) (c Counters, ok bool) {
	s.mu.RLock()
	p := s.planes[id]
	s.mu.RUnlock()
	if p == nil {
		return c, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counters, p.counters.Process != 0
}

// each calls f for every data plane, with its lock held and no other: who connects
// meanwhile does not wait.
func (s *Store) each(f func(id string, p *plane)) {
	s.mu.RLock()
	planes := maps.Clone(s.planes)
	s.mu.RUnlock()
	for id, p := range planes {
		p.mu.Lock()
		f(id, p)
		p.mu.Unlock()
	}
}

// counts reports whether the rates of the session are those of now.
func (x *Session) counts(now time.Time) bool {
	return !x.closed && now.Sub(x.heard) <= silentAfter
}

// Sweep adds up what has happened since the last call. It is to be called every few
// seconds.
func (s *Store) Sweep() {
	now := s.now()
	sums := map[name]*sum{}
	var gone []string
	left := 0
	s.each(func(id string, p *plane) {
		open := p.sessions[:0]
		for _, x := range p.sessions {
			x.sweep(sums, now)
			if !x.closed {
				open = append(open, x)
			}
		}
		clear(p.sessions[len(open):])
		p.sessions = open
		if len(open) > 0 {
			return
		}
		if left++; left > maxLeft || now.Sub(p.counters.At) >= forgetAfter {
			gone = append(gone, id)
		}
	})
	s.forget(gone)
	s.past.add(sums, now)
}

// forget gives up data planes that have no session, unless they have come back.
func (s *Store) forget(ids []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		p := s.planes[id]
		p.mu.Lock()
		if len(p.sessions) == 0 {
			delete(s.planes, id)
		}
		p.mu.Unlock()
	}
}

// finite keeps what a data plane says from being no number, or less than none.
func finite(x float64) float64 {
	if !(x > 0) || math.IsInf(x, 1) {
		return 0
	}
	return x
}

// proper reports whether a text may be kept and shown.
func proper(s string, most int) bool {
	return len(s) <= most && !strings.ContainsFunc(s, unicode.IsControl)
}
