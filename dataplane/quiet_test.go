package main

import (
	"runtime"
	"runtime/debug"
	"testing"
)

func TestQuietly(t *testing.T) {
	t.Setenv("GOGC", "")
	before := debug.SetGCPercent(100)
	defer debug.SetGCPercent(before)
	for _, size := range []uint64{0, largeTable - 1, largeTable} {
		debug.SetGCPercent(70)
		done := 0
		var during int
		quietly(size, size%2 == 0, func() {
			done++
			during = debug.SetGCPercent(70)
			debug.SetGCPercent(during)
		})
		want := 70
		if size >= largeTable {
			want = busyGarbage
		}
		if done != 1 || during != want {
			t.Errorf("%d bytes: done %d times with %d %% of garbage, want once with %d", size, done, during, want)
		}
	}
	t.Setenv("GOGC", "150")
	debug.SetGCPercent(150)
	quietly(largeTable, true, runtime.GC)
	if after := debug.SetGCPercent(100); after != 150 {
		t.Errorf("GOGC is set, and the program has made it %d", after)
	}
}

func TestGarbagePercent(t *testing.T) {
	for live, want := range map[uint64]int{0: mostGarbage, 3 << 20: mostGarbage, 32 << 20: 50, 40 << 20: 40, 1 << 30: leastGarbage} {
		if got := garbagePercent(live); got != want {
			t.Errorf("%d MiB live: %d %%, want %d", live>>20, got, want)
		}
	}
}
