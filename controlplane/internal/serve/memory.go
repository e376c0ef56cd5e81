package serve

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// How much garbage may wait, in percent of what lives, to which the collector counts
// stacks. A data plane has 19 KB of them, in four goroutines that wait, and 10 KB of heap:
// with the usual 100 % as much garbage as both together would wait in a large fleet. So the
// stacks count only as far as they do not outweigh the heap much; a large route table, of
// which a change makes much garbage, leaves nearly all of the 100.
const (
	mostGarbage  = 100
	leastGarbage = 20
	stackWeight  = 3
)

// tuneInterval is the time between two looks at the memory, and tuneStep by how much the
// percentage must differ for it to be set, which stops the world for a moment.
const (
	tuneInterval = time.Second
	tuneStep     = 5
)

// tuneMemory keeps to garbagePercent until the context ends, unless somebody knows
// better.
func tuneMemory(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	clock := time.NewTicker(tuneInterval)
	defer clock.Stop()
	defer debug.SetGCPercent(debug.SetGCPercent(mostGarbage))
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	for now := mostGarbage; ; {
		select {
		case <-ctx.Done():
			return
		case <-clock.C:
		}
		metrics.Read(sample)
		next := garbagePercent(sample[0].Value.Uint64(), sample[1].Value.Uint64())
		if max(now-next, next-now) >= tuneStep {
			now = next
			debug.SetGCPercent(now)
		}
	}
}

// garbagePercent returns the garbage that may wait, in percent.
func garbagePercent(heap, stacks uint64) int {
	return int(max(mostGarbage*heap/max(heap+stackWeight*stacks, 1), leastGarbage))
}
