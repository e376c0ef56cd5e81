//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// silence is how long a control plane may take to answer a heartbeat.
const silence = 3 * time.Second

// fleet is all data planes of this process, and what they have in common.
type fleet struct {
	controlPlane string
	deltas       bool
	planes       []*plane
	received     library

	bytesIn, bytesOut       atomic.Int64
	whole, deltasIn, resent atomic.Int64
	streams, refused        atomic.Int64

	mu sync.Mutex
	// on is how many data planes run a version that has been confirmed on the stream
	// that they have now.
	on map[string]int
}

func newFleet(controlPlane string, count int, prefix string, deltas bool) *fleet {
	f := &fleet{controlPlane: controlPlane, deltas: deltas, on: map[string]int{}}
	f.received.joined, f.received.tables = map[transfer]*joined{}, map[string][]byte{}
	for i := range count {
		f.planes = append(f.planes, &plane{fleet: f, id: fmt.Sprintf("%s-%05d", prefix, i)})
	}
	return f
}

// beat sends the heartbeats of all data planes, spread over the time between two of one.
func (f *fleet) beat(interval time.Duration) {
	const step = 10 * time.Millisecond
	start, next := time.Now(), 0
	for range time.Tick(step) {
		for due := int(int64(time.Since(start)) * int64(len(f.planes)) / int64(interval)); next < due; next++ {
			f.planes[next%len(f.planes)].beat()
		}
	}
}

// event is what is printed when all data planes run one version. Times are those of
// CLOCK_MONOTONIC in seconds; counts are those since the start of the program.
type event struct {
	Version string `json:"version"`
	// When the data planes came to run it on the streams that they have.
	First float64 `json:"first"`
	P50   float64 `json:"p50"`
	P99   float64 `json:"p99"`
	Last  float64 `json:"last"`
	// Bytes of TCP connections.
	BytesIn  int64 `json:"bytes_in"`
	BytesOut int64 `json:"bytes_out"`
	// Tables received as a whole, as deltas, and asked for again.
	Whole  int64 `json:"whole"`
	Deltas int64 `json:"deltas"`
	Resent int64 `json:"resent"`
	// Streams opened, and tables refused.
	Streams int64 `json:"streams"`
	Refused int64 `json:"refused"`
}

// settle notes that a data plane runs a version, or, when it is empty, that its stream
// has ended.
func (f *fleet) settle(p *plane, version string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.settled != "" {
		f.on[p.settled]--
	}
	p.settled, p.settledAt = version, now()
	if version == "" {
		return
	}
	f.on[version]++
	if f.on[version] == len(f.planes) {
		f.print(version)
	}
}

// print prints an event. f.mu is held.
func (f *fleet) print(version string) {
	times := make([]float64, len(f.planes))
	for i, p := range f.planes {
		times[i] = p.settledAt
	}
	slices.Sort(times)
	at := func(share float64) float64 { return times[int(share*float64(len(times)-1)+0.5)] }
	line, err := json.Marshal(event{
		Version: version, First: at(0), P50: at(0.5), P99: at(0.99), Last: at(1),
		BytesIn: f.bytesIn.Load(), BytesOut: f.bytesOut.Load(),
		Whole: f.whole.Load(), Deltas: f.deltasIn.Load(), Resent: f.resent.Load(),
		Streams: f.streams.Load(), Refused: f.refused.Load(),
	})
	if err != nil {
		panic(err)
	}
	fmt.Fprintf(os.Stdout, "%s\n", line)
}

// now is the time of CLOCK_MONOTONIC, which other processes have too.
func now() float64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err)
	}
	return float64(t.Nano()) / 1e9
}
