package rollout

import (
	"fmt"
	"math"
	"time"

	"reverseproxy/controlplane/internal/traffic"
	"reverseproxy/proto/routetable"
)

const (
	// sure is how many standard errors a difference must be beyond its limit to abort
	// before the bake is over: chance alone does that twice in a hundred looks.
	sure = 2
	// leastSlower is by how much the 99th percentile must be longer at least: less is
	// noise.
	leastSlower = 5 * time.Millisecond
)

// windows is what some data planes have done since some moment.
type windows struct {
	last map[string]traffic.Counters // the newest, by id
	sum  traffic.Counters            // of what came after the moment
}

func newWindows() windows { return windows{last: map[string]traffic.Counters{}} }

// observe takes the newest counters of a data plane. The first ones are its beginning.
func (w *windows) observe(id string, c traffic.Counters) {
	before, known := w.last[id]
	if known && before.At.Equal(c.At) {
		return // it has told nothing since
	}
	if known {
		w.sum = w.sum.Add(c.Sub(before))
	}
	w.last[id] = c
}

// restart makes this the moment.
func (w *windows) restart() { w.sum = traffic.Counters{} }

// totals returns what all have done since their processes started.
func (w *windows) totals() traffic.Counters {
	var sum traffic.Counters
	for _, c := range w.last {
		sum = sum.Add(c)
	}
	return sum
}

// reference returns what the change is compared with: the data planes without it in the
// same time, or what they did before when too few are left to tell.
func (r *Rollout) reference() traffic.Counters {
	old := r.onOld.sum
	if old.Requests >= uint64(r.Settings.MinRequests) || old.Requests >= r.Before.Requests {
		return old
	}
	return r.Before
}

// tooFew says that the step cannot be judged, or "".
func (r *Rollout) tooFew() string {
	n := r.onNew.sum.Requests
	if n >= uint64(r.Settings.MinRequests) {
		return ""
	}
	return fmt.Sprintf("too few requests to judge step %d: %d of %d", r.Step+1, n, r.Settings.MinRequests)
}

// judge returns why the change is to be taken back for what its data planes have done,
// or "". Before the end of the bake a difference must be clear.
func (r *Rollout) judge(end bool) string {
	on, off := r.onNew.sum, r.reference()
	if on.Requests < uint64(r.Settings.MinRequests) {
		return ""
	}
	if reason := r.errors(on, off, end); reason != "" {
		return reason
	}
	if off.Requests < uint64(r.Settings.MinRequests) {
		return "" // of few requests any can be the slowest
	}
	return r.slower(on, off)
}

// errors compares the rates of server errors.
func (r *Rollout) errors(on, off traffic.Counters, end bool) string {
	p, q := share(on.ServerErrors, on.Requests), share(off.ServerErrors, off.Requests)
	margin := 0.0
	if !end {
		margin = sure * math.Sqrt(variance(p, on.Requests)+variance(q, off.Requests))
	}
	if 100*(p-q-margin) <= r.Settings.AbortOn.ErrorRate {
		return ""
	}
	return fmt.Sprintf("server errors: %.2f%% of %d requests with it, %.2f%% of %d without; the limit is %g points more",
		100*p, on.Requests, 100*q, off.Requests, r.Settings.AbortOn.ErrorRate)
}

// slower compares the 99th percentiles of the durations. A few requests decide about
// them, so the difference must be clear at any time.
func (r *Rollout) slower(on, off traffic.Counters) string {
	limit := time.Duration(r.Settings.AbortOn.LatencyP99 * float64(off.P99()))
	limit = max(limit, off.P99()+leastSlower)
	slow := above(on, limit)
	part := slow / float64(on.Requests)
	if part-sure*math.Sqrt(variance(part, on.Requests)) <= 0.01 {
		return ""
	}
	return fmt.Sprintf("99%% of %d requests with it took up to %s, %s without; the limit is %g times as much",
		on.Requests, rounded(on.P99()), rounded(off.P99()), r.Settings.AbortOn.LatencyP99)
}

func rounded(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }

func share(part, all uint64) float64 {
	if all == 0 {
		return 0
	}
	return float64(part) / float64(all)
}

// variance of a share that was found in n of n requests.
func variance(p float64, n uint64) float64 {
	if n == 0 {
		return 0
	}
	return p * (1 - min(1, p)) / float64(n)
}

// above returns how many requests took longer than a time. Those in one bucket are taken
// to be spread evenly.
func above(c traffic.Counters, limit time.Duration) float64 {
	var sum float64
	var from time.Duration
	for i, to := range routetable.DurationBounds {
		n := float64(c.Durations[i])
		switch {
		case limit <= from:
			sum += n
		case limit < to:
			sum += n * float64(to-limit) / float64(to-from)
		}
		from = to
	}
	return sum + float64(c.Durations[len(routetable.DurationBounds)])
}
