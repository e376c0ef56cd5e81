package wheel

import (
	"math/rand/v2"
	"testing"
)

type owner struct {
	timer    Timer[owner]
	deadline int64 // 0: none
}

// Whoever sleeps until Next, and calls Expired then, misses no deadline by more than a
// tick, and is not woken for nothing all the time.
func TestNext(t *testing.T) {
	const second = int64(20 * Tick)
	r := rand.New(rand.NewPCG(1, 2))
	now := 1000 * second
	var w Wheel[owner]
	w.Init(now)
	owners := make([]owner, 50)
	for i := range owners {
		owners[i].timer.Owner = &owners[i]
	}
	expired, calls := 0, 0
	for range 20_000 {
		// Something happens, or nothing does until Next.
		if next := w.Next(); next != 0 && r.IntN(2) == 0 {
			if next <= now-int64(Tick) {
				t.Fatalf("at %d the next call was due at %d", now, next)
			}
			now = max(now, next)
			calls++
		} else {
			now += r.Int64N(second / 40)
		}
		for o := w.Expired(now); o != nil; o = w.Expired(now) {
			if late := now - o.deadline; o.deadline == 0 || late < 0 || late > int64(Tick)+second/40 {
				t.Fatalf("a deadline at %d has passed at %d", o.deadline, now)
			}
			o.deadline = 0
			expired++
		}
		for range r.IntN(3) {
			o := &owners[r.IntN(len(owners))]
			switch r.IntN(8) {
			case 0:
				o.deadline = 0
				w.Drop(&o.timer)
			case 1:
				o.deadline = 0
				w.Set(&o.timer, 0, now)
			case 2:
				o.deadline = now + r.Int64N(100*second) // beyond the reach of the wheel
				w.Set(&o.timer, o.deadline, now)
			default:
				o.deadline = now + 1 + r.Int64N(second)
				w.Set(&o.timer, o.deadline, now)
			}
		}
		for i := range owners {
			if d := owners[i].deadline; d != 0 && w.Next() > d+int64(Tick) {
				t.Fatalf("at %d a deadline is at %d, and the next call at %d", now, d, w.Next())
			}
		}
	}
	if expired < 1000 || calls < 1000 {
		t.Errorf("%d expired in %d calls", expired, calls)
	}
	for i := range owners {
		w.Drop(&owners[i].timer)
	}
	if !w.Empty() || w.Next() != 0 {
		t.Errorf("Next is %d without timers", w.Next())
	}
}
