package metrics

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// endpointHealth counts what happens when backends of an endpoint are not there:
// seldom enough to be counted in one place.
type endpointHealth struct {
	panicking atomic.Bool
	panics    atomic.Uint64
}

// Panic records whether no backend of the endpoint is usable, and reports whether that
// is news. It may be called from several goroutines.
func (e *Endpoint) Panic(on bool) bool {
	if e.health.panicking.Swap(on) == on {
		return false
	}
	if on {
		e.health.panics.Add(1)
	}
	return true
}

var (
	panicDesc = desc("endpoint_panic",
		"Whether no backend of the endpoint is usable.", "endpoint")
	panicsDesc = desc("endpoint_panics_total",
		"Times that no backend of the endpoint was usable any more.", "endpoint")
)

// health exposes the health of an endpoint that has backends.
func (c *collection) health(e *Endpoint) {
	h := &e.health
	on := 0.0
	if h.panicking.Load() {
		on = 1
	}
	c.value(panicDesc, prometheus.GaugeValue, on, e.name)
	c.value(panicsDesc, prometheus.CounterValue, float64(h.panics.Load()), e.name)
}
