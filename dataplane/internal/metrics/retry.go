package metrics

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// retryShard counts the retries of an endpoint; written by one shard only.
type retryShard struct {
	done    [retryReasons]atomic.Uint64
	skipped [retrySkips]atomic.Uint64
	_       [128 - (retryReasons+retrySkips)*8]byte // whole cache lines
}

// RetryReason is what a request is sent again for: a fixed set of label values.
type RetryReason uint8

// The reasons.
const (
	RetryConnectFailure RetryReason = iota
	RetryReset
	RetryTimeout
	Retry502
	Retry503
	Retry504
	retryReasons = iota
)

var retryReasonLabels = [retryReasons]string{"connect_failure", "reset", "timeout", "502", "503", "504"}

// RetrySkip is why a request is not sent again although it failed in a way that it
// would be sent again for: a fixed set of label values.
type RetrySkip uint8

// The reasons.
const (
	SkippedAttempts RetrySkip = iota // there have been as many as are allowed
	SkippedBudget                    // retries have used up their part
	SkippedMethod                    // not idempotent, and the backend may have got it
	SkippedBody                      // not complete, or too large to be kept
	SkippedSent                      // the client has been sent something
	SkippedBackend                   // there is none to be given it
	retrySkips      = iota
)

var retrySkipLabels = [retrySkips]string{"attempts", "budget", "method", "body", "sent", "backend"}

// Begun returns how many requests have begun. It may be called from several
// goroutines.
func (e *Endpoint) Begun() (n uint64) {
	e.shards.each(func(s *endpointShard) { n += s.begun.Load() })
	return n
}

// TrackRetries says whether requests may be sent again, and so whether the counts
// of that are exposed. It may be called from several goroutines.
func (e *Endpoint) TrackRetries(on bool) { e.retried.Store(on) }

// Retry counts a request that is sent again. Only by the owner of the shard.
func (e *Endpoint) Retry(shard int, r RetryReason) {
	add(&e.retries.of(e.set, shard).done[r], 1)
}

// RetrySkipped counts a request that is not sent again. Only by the owner of the
// shard.
func (e *Endpoint) RetrySkipped(shard int, why RetrySkip) {
	add(&e.retries.of(e.set, shard).skipped[why], 1)
}

var (
	retriesDesc = desc("retries_total",
		"Requests sent to a backend again, by what had failed.", "endpoint", "reason")
	retriesSkippedDesc = desc("retries_skipped_total",
		"Failed requests that were not sent again, by what spoke against it.", "endpoint", "why")
)

func (c *collection) retries(e *Endpoint) {
	if !e.retried.Load() {
		return
	}
	var done [retryReasons]uint64
	var skipped [retrySkips]uint64
	e.retries.each(func(s *retryShard) {
		for i := range done {
			done[i] += s.done[i].Load()
		}
		for i := range skipped {
			skipped[i] += s.skipped[i].Load()
		}
	})
	for i, n := range done {
		c.value(retriesDesc, prometheus.CounterValue, float64(n), e.name, retryReasonLabels[i])
	}
	for i, n := range skipped {
		c.value(retriesSkippedDesc, prometheus.CounterValue, float64(n), e.name, retrySkipLabels[i])
	}
}
