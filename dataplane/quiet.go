package main

import (
	"os"
	"runtime/debug"
	"runtime/metrics"
)

// largeTable is from how many bytes on a table is worth the trouble.
const largeTable = 1 << 20

// restGarbage is how many bytes of garbage may wait beside what lives, when that
// is more. Forwarding makes none; the usual share would let a heartbeat here and a
// scrape there add as much as a large table takes. No less than leastGarbage, in
// percent of what lives, lest the collector never rests.
const (
	restGarbage  = 16 << 20
	leastGarbage = 20
)

// quietly does the work of applying a table of some size, and then gives the
// memory that it took, and that of the table before, back to the system.
func quietly(size uint64, work func()) {
	if size < largeTable {
		work()
		return
	}
	if os.Getenv("GOGC") == "" { // else somebody knows better
		// Two tables live for a moment; that is no reason to run the collector.
		debug.SetGCPercent(100)
		defer func() { debug.SetGCPercent(garbagePercent(live())) }()
	}
	work()
	debug.FreeOSMemory()
}

// garbagePercent returns the garbage that may wait at rest, in percent of what
// lives.
func garbagePercent(live uint64) int {
	return int(min(100, max(restGarbage*100/max(live, 1), leastGarbage)))
}

// live returns the bytes that the last cycle of the collector found in use.
func live() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
