package metrics

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// endpointLimits counts what an endpoint refuses: seldom enough to be counted in one
// place.
type endpointLimits struct {
	on      atomic.Bool // there are limits
	queued  atomic.Int64
	refused [refusals]atomic.Uint64
}

// Refusal is why a request was refused that an endpoint had taken: a fixed set of
// label values, none of which is another reason's.
type Refusal uint8

// The refusals.
const (
	NoBackend    Refusal = iota // every backend has weight 0
	NoAddress                   // no backend's name has been found
	NoneHealthy                 // there are backends, and none is usable
	RateLimit                   // more requests than in that time may come
	MaxRequests                 // as many are in flight as may be, and there is no line
	BackendsFull                // and so for each backend
	QueueFull                   // there is a line, and no room in it
	QueueTimeout                // waited for too long
	refusals     = iota
)

// String returns the label value.
func (r Refusal) String() string { return refusalLabels[r] }

var refusalLabels = [refusals]string{
	"no_backend", "no_address", "none_healthy", "rate_limit", "max_requests", "backends_full", "queue_full", "queue_timeout",
}

// SetLimited exposes what limits do, or ends that. It may be called from several
// goroutines.
func (e *Endpoint) SetLimited(on bool) { e.limits.on.Store(on) }

// Refused counts a refused request. It may be called from several goroutines.
func (e *Endpoint) Refused(r Refusal) { e.limits.refused[r].Add(1) }

// Queued adds delta to the number of requests that wait in line. It may be called from
// several goroutines.
func (e *Endpoint) Queued(delta int64) { e.limits.queued.Add(delta) }

var queuedDesc = desc("requests_queued",
	"Requests that wait for others to end; they are in flight as well.", "endpoint")

var refusedDesc = desc("requests_refused_total",
	"Requests that an endpoint took and that were given to no backend, by reason.", "endpoint", "reason")

// refusals exposes what an endpoint refuses, with what its limits do if it has some.
func (c *collection) refusals(e *Endpoint) {
	l := &e.limits
	if l.on.Load() {
		c.value(queuedDesc, prometheus.GaugeValue, float64(l.queued.Load()), e.name)
	}
	for i, label := range refusalLabels {
		if Refusal(i) >= RateLimit && !l.on.Load() {
			return
		}
		c.value(refusedDesc, prometheus.CounterValue, float64(l.refused[i].Load()), e.name, label)
	}
}
