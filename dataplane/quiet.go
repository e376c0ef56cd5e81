package main

import (
	"os"
	"runtime/debug"
	"runtime/metrics"
)

// Work on a table of this many bytes and more is done quietly.
const largeTable = 1 << 20

const (
	// busyGarbage is how much garbage may wait, in percent of what lives, while a
	// large table is applied: two tables live then, and a cycle of the collector
	// is cheap, because there are few pointers in them.
	busyGarbage = 20
	// restGarbage is how many bytes of garbage may wait while nothing but requests
	// is worked on, which make none. A large table must not double it.
	restGarbage = 16 << 20
)

// quietly does the work of applying a table of some size so that the requests of
// others do not notice, and gives the memory that it took back to the system.
func quietly(size uint64, work func()) {
	if size < largeTable {
		work()
		return
	}
	if os.Getenv("GOGC") == "" { // else somebody knows better
		debug.SetGCPercent(busyGarbage)
		defer func() { debug.SetGCPercent(garbagePercent(live())) }()
	}
	work()
	debug.FreeOSMemory()
}

// garbagePercent returns the garbage that may wait in percent of what lives.
func garbagePercent(live uint64) int {
	return int(min(100, max(restGarbage*100/max(live, 1), busyGarbage)))
}

// live returns the bytes that the last cycle of the collector found in use.
func live() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
