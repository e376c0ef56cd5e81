package limit_test

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"reverseproxy/dataplane/internal/limit"
)

// line is a gate and who of those that waited has been let in.
type line struct {
	*limit.Gate
	in []string
}

func (l *line) wait(name string) (*limit.Waiter, limit.Outcome) {
	w := &limit.Waiter{Call: func() { l.in = append(l.in, name) }}
	return w, l.Wait(w)
}

func (l *line) want(t *testing.T, inFlight int, in ...string) {
	t.Helper()
	if got := l.InFlight(); got != inFlight {
		t.Errorf("%d in flight, want %d", got, inFlight)
	}
	if !slices.Equal(l.in, in) {
		t.Errorf("let in: %q, want %q", l.in, in)
	}
	l.in = nil
}

func enter(t *testing.T, g *limit.Gate, want bool) {
	t.Helper()
	if got := g.Enter(); got != want {
		t.Errorf("Enter: %t, want %t", got, want)
	}
}

func wantOutcome(t *testing.T, got, want limit.Outcome) {
	t.Helper()
	if got != want {
		t.Errorf("outcome %d, want %d", got, want)
	}
}

func TestGateKeepsOrder(t *testing.T) {
	l := &line{Gate: limit.NewGate(2, 2)}
	enter(t, l.Gate, true)
	enter(t, l.Gate, true)
	enter(t, l.Gate, false)
	for _, name := range []string{"a", "b"} {
		_, got := l.wait(name)
		wantOutcome(t, got, limit.Waiting)
	}
	_, got := l.wait("c")
	wantOutcome(t, got, limit.Full)
	l.want(t, 2)
	l.Leave()
	l.want(t, 2, "a")
	enter(t, l.Gate, false) // b is first
	l.Leave()
	l.want(t, 2, "b")
	l.Leave()
	enter(t, l.Gate, true)
	l.Leave()
	l.Leave()
	l.want(t, 0)
}

func TestGateCancel(t *testing.T) {
	l := &line{Gate: limit.NewGate(1, 9)}
	enter(t, l.Gate, true)
	a, _ := l.wait("a")
	b, _ := l.wait("b")
	c, _ := l.wait("c")
	if !l.Cancel(b) {
		t.Error("b was not in line")
	}
	l.Leave()
	l.want(t, 1, "a")
	if l.Cancel(a) {
		t.Error("a was still in line")
	}
	l.Leave() // as a must
	l.want(t, 1, "c")
	if l.Cancel(c) {
		t.Error("c was still in line")
	}
	l.Leave()
	enter(t, l.Gate, true)
	d, _ := l.wait("d")
	l.Cancel(d)
	l.Leave()
	enter(t, l.Gate, true) // an empty line stops nobody
	l.want(t, 1)
}

func TestGateLimitsChange(t *testing.T) {
	l := &line{Gate: limit.NewGate(1, 2)}
	enter(t, l.Gate, true)
	l.wait("a")
	l.wait("b")
	l.Set(2, 3)
	l.want(t, 2, "a")
	l.wait("c")
	_, got := l.wait("d")
	wantOutcome(t, got, limit.Waiting)
	l.Set(1, 0) // those in line stay
	l.Leave()
	l.want(t, 1)
	l.Leave()
	l.want(t, 1, "b")
	_, got = l.wait("e")
	wantOutcome(t, got, limit.Full)
	l.Set(0, 0)
	l.want(t, 3, "c", "d")
	for range 100 {
		enter(t, l.Gate, true)
	}
}

// shelf is a source of backends.
type shelf struct {
	free    int
	watched *limit.Gate
	watches int
}

func (s *shelf) Watch(g *limit.Gate) { s.watched = g; s.watches++ }
func (s *shelf) Unwatch(*limit.Gate) { s.watched = nil }

func (s *shelf) take() bool {
	if s.free == 0 {
		return false
	}
	s.free--
	return true
}

func (s *shelf) give(n int) {
	s.free += n
	if s.watched != nil {
		s.watched.Freed()
	}
}

func TestGateWaitsForBackends(t *testing.T) {
	l := &line{Gate: limit.NewGate(0, 5)}
	s := &shelf{}
	wait := func(name string) limit.Outcome {
		return l.Wait(&limit.Waiter{Take: s.take, Source: s, Call: func() { l.in = append(l.in, name) }})
	}
	wantOutcome(t, wait("a"), limit.Waiting)
	wantOutcome(t, wait("b"), limit.Waiting)
	enter(t, l.Gate, false)
	if s.watches != 1 {
		t.Errorf("watched %d times", s.watches)
	}
	s.give(1)
	l.want(t, 1, "a")
	s.give(2)
	l.want(t, 2, "b")
	if s.watched != nil {
		t.Error("watched for nobody")
	}
	wantOutcome(t, wait("c"), limit.In)
	l.want(t, 3)
	if s.free != 0 {
		t.Error("c has not taken a backend")
	}

	// The first waits for a backend, the one behind it for nothing.
	d := &limit.Waiter{Take: s.take, Source: s, Call: func() {}}
	l.Wait(d)
	_, got := l.wait("e")
	wantOutcome(t, got, limit.Waiting)
	l.Cancel(d)
	l.want(t, 4, "e")

	// What is freed between a look and the watch is not lost.
	other := &shelf{}
	looks := 0
	wantOutcome(t, l.Wait(&limit.Waiter{Source: other, Take: func() bool { looks++; return looks == 2 }}), limit.In)
}

// Requests of many goroutines come, wait, give up and leave; there are never more
// than the limit, which changes, and in the end none is left.
func TestGateUnderLoad(t *testing.T) {
	const goroutines, rounds = 8, 3000
	g := limit.NewGate(3, 4)
	var inside, most atomic.Int64
	most.Store(5) // of all limits
	var served, refused, gaveUp atomic.Int64
	serve := func() {
		if n := inside.Add(1); n > most.Load() {
			t.Errorf("%d in flight", n)
		}
		served.Add(1)
		inside.Add(-1)
		g.Leave()
	}
	var all sync.WaitGroup
	for seed := range uint64(goroutines) {
		all.Go(func() {
			random := rand.New(rand.NewPCG(seed, 1))
			for range rounds {
				if g.Enter() {
					serve()
					continue
				}
				called := make(chan struct{})
				w := &limit.Waiter{Call: func() { close(called) }}
				switch g.Wait(w) {
				case limit.In:
					serve()
				case limit.Full:
					refused.Add(1)
				case limit.Waiting:
					if random.IntN(4) == 0 {
						if g.Cancel(w) {
							gaveUp.Add(1)
							continue
						}
						select {
						case <-called:
						case <-time.After(10 * time.Second):
							t.Error("let in and not called")
						}
						serve()
						continue
					}
					<-called
					serve()
				}
			}
		})
	}
	all.Go(func() {
		for i := range rounds {
			g.Set(1+i%5, i%7)
		}
		g.Set(3, 4)
	})
	all.Wait()
	if n := g.InFlight(); n != 0 {
		t.Errorf("%d in flight in the end", n)
	}
	if n := served.Load() + refused.Load() + gaveUp.Load(); n != goroutines*rounds {
		t.Errorf("%d requests have ended of %d", n, goroutines*rounds)
	}
	t.Logf("served %d, refused %d, gave up %d", served.Load(), refused.Load(), gaveUp.Load())
}

func BenchmarkGate(b *testing.B) {
	g := limit.NewGate(1000, 10)
	b.Run("one loop", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			g.Enter()
			g.Leave()
		}
	})
	b.Run("all loops", func(b *testing.B) {
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				g.Enter()
				g.Leave()
			}
		})
	})
}
