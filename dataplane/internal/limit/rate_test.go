package limit_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"reverseproxy/dataplane/internal/limit"
)

func rate(requests uint32, per time.Duration, burst uint32) *limit.Rate {
	return limit.NewRate(limit.Rule{Requests: requests, Per: per, Burst: burst}, new(limit.Fleet))
}

func TestRateBurstThenSteady(t *testing.T) {
	const ms = int64(time.Millisecond)
	r := rate(10, time.Second, 3)
	for i, tt := range []struct {
		at   int64
		wait time.Duration
	}{
		{1000 * ms, 0}, {1000 * ms, 0}, {1000 * ms, 0}, {1000 * ms, 100 * time.Millisecond},
		{1060 * ms, 40 * time.Millisecond}, {1099 * ms, time.Millisecond}, {1100 * ms, 0}, {1100 * ms, 100 * time.Millisecond},
		{1300 * ms, 0}, {1300 * ms, 0}, {1300 * ms, 100 * time.Millisecond}, // two have come back
		{9000 * ms, 0}, {9000 * ms, 0}, {9000 * ms, 0}, {9000 * ms, 100 * time.Millisecond}, // never more than a burst
		{8900 * ms, 200 * time.Millisecond}, // by the clock of a loop that is behind
	} {
		if got := r.Take(tt.at); got != tt.wait {
			t.Errorf("request %d at %d ms has to wait %v, want %v", i, tt.at/ms, got, tt.wait)
		}
	}
}

func TestRateIsSharedByTheFleet(t *testing.T) {
	f := new(limit.Fleet)
	count := func(rule limit.Rule, over time.Duration) (n int) {
		r := limit.NewRate(rule, f)
		for at := int64(1); at <= int64(over); at += int64(over) / 1000 {
			for r.Take(at) == 0 {
				n++
			}
		}
		return n
	}
	rule := limit.Rule{Requests: 100, Per: time.Second, Burst: 20}
	for _, tt := range []struct {
		size uint32
		want int
	}{
		{1, 20 + 999}, {2, 10 + 499}, {4, 5 + 249}, {50, 1 + 19}, {200, 1 + 4}, // a burst of at least 1
	} {
		f.Set(tt.size)
		if got := count(rule, 10*time.Second); got != tt.want {
			t.Errorf("of %d data planes each allows %d, want %d", tt.size, got, tt.want)
		}
	}
	f.Set(0)
	if f.Size() != 1 {
		t.Error("a fleet of nobody")
	}
}

// TestRateExtremes: sums of times must not overflow.
func TestRateExtremes(t *testing.T) {
	f := new(limit.Fleet)
	f.Set(1 << 31)
	const year = int64(365 * 24 * time.Hour)
	for _, rule := range []limit.Rule{
		{Requests: 1, Per: 24 * time.Hour, Burst: 1_000_000},
		{Requests: 1, Per: 24 * time.Hour, Burst: 1},
		{Requests: 1_000_000, Per: time.Millisecond, Burst: 1_000_000},
	} {
		r := limit.NewRate(rule, f)
		for _, now := range []int64{1, year, 10 * year} {
			allowed := 0
			for range 2000 {
				if wait := r.Take(now); wait == 0 {
					allowed++
				} else if wait < 0 {
					t.Fatalf("%+v at %d: a wait of %v", rule, now, wait)
				}
			}
			if now == 1 && allowed == 0 {
				t.Errorf("%+v: the first is not allowed", rule)
			}
		}
	}
}

// exact is the limiter that keeps everything: a request is allowed when a bucket
// that fills steadily holds one. In whole intervals, so that nothing is rounded.
type exact struct {
	interval, burst int64
	buckets         map[uint64]*bucket
}

type bucket struct{ level, at int64 } // level in nanoseconds of filling

func (x *exact) take(key uint64, now int64) time.Duration {
	b := x.buckets[key]
	if b == nil {
		b = &bucket{level: x.burst * x.interval, at: now}
		x.buckets[key] = b
	}
	b.level = min(b.level+now-b.at, x.burst*x.interval)
	b.at = now
	if b.level < x.interval {
		return time.Duration(x.interval - b.level)
	}
	b.level -= x.interval
	return 0
}

func TestRateAgreesWithExact(t *testing.T) {
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 2))
		requests := 1 + random.Uint32N(50)
		interval := 1 + random.Int64N(int64(time.Second))
		burst := 1 + random.Uint32N(20)
		r := rate(requests, time.Duration(interval*int64(requests)), burst)
		x := &exact{interval: interval, burst: int64(burst), buckets: map[uint64]*bucket{}}
		keys := 1 + random.Uint64N(300)
		now := int64(1)
		for range 3000 {
			key := random.Uint64N(keys)
			var got time.Duration
			if keys == 1 {
				got = r.Take(now)
			} else {
				got = r.TakeOf(r.Hash([]byte{byte(key), byte(key >> 8)}), now)
			}
			if want := x.take(key, now); got != want {
				t.Fatalf("seed %d: %v, want %v", seed, got, want)
			}
			if random.IntN(3) > 0 {
				now += random.Int64N(2 * interval / int64(1+random.IntN(10)) * 2)
			}
		}
	}
}

func FuzzRate(f *testing.F) {
	f.Add(uint32(3), int64(1000), uint32(2), []byte{0, 0, 0, 9, 200})
	f.Fuzz(func(t *testing.T, requests uint32, interval int64, burst uint32, steps []byte) {
		if requests == 0 || requests > 1000 || interval <= 0 || interval > int64(time.Hour) || burst == 0 || burst > 1000 {
			return
		}
		r := rate(requests, time.Duration(interval*int64(requests)), burst)
		x := &exact{interval: interval, burst: int64(burst), buckets: map[uint64]*bucket{}}
		now := int64(1)
		for _, s := range steps {
			now += int64(s&0x3f) * interval / 16
			key := uint64(s >> 6)
			if got, want := r.TakeOf(key, now), x.take(key, now); got != want {
				t.Fatalf("%v, want %v", got, want)
			}
		}
	})
}

// More keys than there are cells: a key that takes much is not forgotten for those
// that take little.
func TestManyKeys(t *testing.T) {
	r := rate(1, time.Second, 100)
	greedy, now := r.HashString("greedy"), int64(time.Hour)
	for range 100 {
		if r.TakeOf(greedy, now) != 0 {
			t.Fatal("less than a burst")
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 200_000 {
		if r.TakeOf(random.Uint64(), now) != 0 {
			t.Fatal("a new key is refused")
		}
	}
	if r.TakeOf(greedy, now) == 0 {
		t.Error("was forgotten")
	}
}

// Several loops at the same time allow no more than one would.
func TestRateUnderLoad(t *testing.T) {
	r := rate(1, time.Hour, 1000)
	key := r.HashString("k")
	r.TakeOf(key, 1)
	var all, keyed atomic.Int64
	var loops sync.WaitGroup
	for range 4 {
		loops.Go(func() {
			for range 1000 {
				if r.Take(1) == 0 {
					all.Add(1)
				}
				if r.TakeOf(key, 1) == 0 {
					keyed.Add(1)
				}
			}
		})
	}
	loops.Wait()
	if all.Load() != 1000 || keyed.Load() != 999 {
		t.Errorf("%d and %d allowed, want 1000 and 999", all.Load(), keyed.Load())
	}
}

func BenchmarkRate(b *testing.B) {
	r := rate(1_000_000, time.Second, 1_000_000)
	now := int64(1)
	b.Run("all", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			now += 1000
			r.Take(now)
		}
	})
	for _, keys := range []int{1, 1000, 10_000} {
		names := make([]string, keys)
		for i := range names {
			names[i] = fmt.Sprint("192.0.2.", i)
		}
		b.Run(fmt.Sprint(keys, " keys"), func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				now += 1000
				i++
				r.TakeOf(r.HashString(names[i%keys]), now)
			}
		})
	}
}
