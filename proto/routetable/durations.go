package routetable

import "time"

// DurationBounds are the upper bounds, inclusive, of the buckets in which a data plane
// counts requests by their duration: those of dataplane_request_duration_seconds, and
// of Traffic.durations, which has one more bucket for all that took longer. They are
// what a proxy that adds microseconds and waits for slow backends needs to tell apart.
var DurationBounds = [...]time.Duration{
	500 * time.Microsecond, time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond,
	25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
}

// MaxSamplePath is the longest path, in bytes, of a Sample.
const MaxSamplePath = 512
