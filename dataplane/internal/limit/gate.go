package limit

import (
	"math"
	"sync"
	"sync/atomic"
)

// crowded is added to the count of a gate while requests wait, so that it is over
// any limit: no newcomer passes those in line.
const crowded = 1 << 62

// Gate bounds how many requests are in flight, and keeps in order those that wait
// until there is room. A request passes with one atomic operation while there is.
// All methods may be called from several goroutines.
type Gate struct {
	count atomic.Int64 // requests in flight, plus crowded
	most  atomic.Int64 // of them

	mu          sync.Mutex // guards the following
	first, last *Waiter
	waiting     int
	size        int // most that wait
	// watched is where the backends are that the line waits for; nil: it does not
	// wait for backends.
	watched Source
}

// Waiter is a request in line. What is exported is set before Wait and not changed.
type Waiter struct {
	// Take takes what the request needs beyond room in the gate, a backend that is
	// not full, and reports whether there is one; nil: nothing. It is called from any
	// goroutine, for one waiter of a gate at a time, and must not use the gate.
	Take func() bool
	// Source is what Take takes from.
	Source Source
	// Call tells that the request has been let in, which Wait itself has not told.
	// It is called from any goroutine and must not use the gate.
	Call func()

	// Guarded by the gate's mutex.
	next, prev *Waiter
	in         bool // let in
	called     bool // Wait has returned, so that Call is how to tell
}

// Source is where backends are taken from.
type Source interface {
	// Watch has g.Freed called whenever Take of a waiter that failed before may
	// succeed, until Unwatch.
	Watch(g *Gate)
	Unwatch(g *Gate)
}

// NewGate returns a gate that lets most requests in at a time (0: any number), and
// size others wait.
func NewGate(most, size int) *Gate {
	g := &Gate{}
	g.Set(most, size)
	return g
}

// Set changes the limits. Those that wait are let in as far as there is more room.
func (g *Gate) Set(most, size int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if most == 0 {
		most = math.MaxInt32
	}
	g.most.Store(int64(most))
	g.size = size
	g.admit()
}

// Enter lets a request in, unless as many are in flight as may be, or others wait.
func (g *Gate) Enter() bool {
	for {
		n := g.count.Load()
		if n >= g.most.Load() {
			return false
		}
		if g.count.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Leave counts a request out that has been let in. Its room is the first waiter's.
func (g *Gate) Leave() {
	if g.count.Add(-1) >= crowded {
		g.Freed()
	}
}

// Outcome is what has become of a request that would wait.
type Outcome uint8

// The outcomes.
const (
	In      Outcome = iota // it need not: there is room by now
	Waiting                // it is in line
	Full                   // the line is
)

// Wait puts a request in line. From then on its owner waits for w.Call, or gives up
// with Cancel.
func (g *Gate) Wait(w *Waiter) Outcome {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.waiting >= g.size {
		return Full
	}
	if g.first == nil {
		g.count.Add(crowded)
		g.first = w
	} else {
		g.last.next, w.prev = w, g.last
	}
	g.last = w
	g.waiting++
	g.admit()
	if w.in {
		return In
	}
	w.called = true
	return Waiting
}

// Cancel takes a request out of line. It returns false when the request has been
// let in: then what it has taken, and its room in the gate, is to be given back.
func (g *Gate) Cancel(w *Waiter) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if w.in {
		return false
	}
	g.remove(w)
	g.admit() // the next may need less
	return true
}

// Freed lets in those for whom there is room now.
func (g *Gate) Freed() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.admit()
}

// InFlight returns how many requests have been let in and not left.
func (g *Gate) InFlight() int { return int(g.count.Load() & (crowded - 1)) }

// admit lets waiters in, the first first, until there is no room for one. While
// there are any nobody else adds to the count. The caller holds mu.
func (g *Gate) admit() {
	for w := g.first; w != nil; w = g.first {
		if g.count.Load()-crowded >= g.most.Load() || !g.take(w) {
			return
		}
		g.count.Add(1)
		g.remove(w)
		w.in = true
		if w.called {
			w.Call()
		}
	}
}

// take takes what w needs. What is freed after it has failed is told by Freed.
func (g *Gate) take(w *Waiter) bool {
	if w.Take == nil || w.Take() {
		return true
	}
	if g.watched == w.Source {
		return false
	}
	g.unwatch()
	g.watched = w.Source
	g.watched.Watch(g)
	return w.Take() // what was freed before it was watched
}

func (g *Gate) unwatch() {
	if g.watched != nil {
		g.watched.Unwatch(g)
		g.watched = nil
	}
}

// remove takes w out of line. The caller holds mu.
func (g *Gate) remove(w *Waiter) {
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		g.first = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		g.last = w.prev
	}
	w.next, w.prev = nil, nil
	g.waiting--
	if g.first == nil {
		g.count.Add(-crowded)
		g.unwatch()
	}
}
