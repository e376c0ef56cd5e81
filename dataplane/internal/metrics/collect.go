package metrics

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"reverseproxy/proto/routetable"
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("dataplane_"+name, help, labels, nil)
}

var (
	requestsDesc = desc("requests_total",
		"Requests answered, by the status that was sent; 499 when the client left before.", "endpoint", "code", "method")
	durationDesc = desc("request_duration_seconds",
		"Time from the first byte of a request to the last byte of its response.", "endpoint")
	inFlightDesc = desc("requests_in_flight",
		"Requests being answered.", "endpoint")
	bytesInDesc = desc("request_bytes_total",
		"Bytes of requests received from clients, heads and bodies.", "endpoint")
	bytesOutDesc = desc("response_bytes_total",
		"Bytes of responses sent to clients, heads and bodies.", "endpoint")
	backendRequestsDesc = desc("backend_requests_total",
		"Responses of a backend, by their status.", "endpoint", "backend", "code")
	backendErrorsDesc = desc("backend_errors_total",
		"Requests that a backend failed to answer, by reason.", "endpoint", "backend", "reason")
	backendDurationDesc = desc("backend_request_duration_seconds",
		"Time from the choice of a backend to the head of its response.", "endpoint", "backend")
	backendUpDesc = desc("backend_up",
		"Whether the backend can be used: one of its addresses is healthy, not ejected, and could be connected to the last time.", "endpoint", "backend")
	clientErrorsDesc = desc("client_errors_total",
		"Requests that their client failed to send or to take, by reason.", "reason")
	connectionsDesc = desc("connections",
		"Client connections, by state: active, idle or tunnel.", "state")
)

// Describe implements prometheus.Collector.
func (s *Set) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		requestsDesc, durationDesc, inFlightDesc, bytesInDesc, bytesOutDesc,
		backendRequestsDesc, backendErrorsDesc, backendDurationDesc, backendUpDesc, clientErrorsDesc, connectionsDesc,
		panicDesc, panicsDesc, queuedDesc, refusedDesc, retriesDesc, retriesSkippedDesc,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (s *Set) Collect(ch chan<- prometheus.Metric) {
	// What there is, first, and the backends of one endpoint at a time, so that the
	// lock is not held for long: an endpoint that comes into use waits for it.
	endpoints := append(s.all(nil), s.none)

	c := collection{ch: ch}
	for state, label := range connStateLabels {
		var n int64
		for i := range s.shards {
			n += s.shards[i].connections[state].Load()
		}
		c.value(connectionsDesc, prometheus.GaugeValue, float64(n), label)
	}
	for reason, label := range clientReasonLabels {
		var n uint64
		for i := range s.shards {
			n += s.shards[i].clientErrors[reason].Load()
		}
		c.value(clientErrorsDesc, prometheus.CounterValue, float64(n), label)
	}
	var backends []*Backend
	for _, e := range endpoints {
		c.endpoint(e)
		if e != s.none {
			c.health(e)
			c.refusals(e)
		}
		c.retries(e)
		backends = e.all(backends[:0])
		for _, b := range backends {
			c.backend(e, b)
		}
	}
}

// all appends the endpoints that are exposed.
func (s *Set) all(to []*Endpoint) []*Endpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	to = slices.Grow(to, len(s.endpoints)+1)
	for _, e := range s.endpoints {
		to = append(to, e)
	}
	return to
}

// all appends the backends of the endpoint that are exposed.
func (e *Endpoint) all(to []*Backend) []*Backend {
	e.set.mu.Lock()
	defer e.set.mu.Unlock()
	for b := e.backends; b != nil; b = b.next {
		to = append(to, b)
	}
	return to
}

// collection is one run of Collect.
type collection struct {
	ch   chan<- prometheus.Metric
	sums map[uint32]uint64 // scratch
}

func (c *collection) value(d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string) {
	m, err := prometheus.NewConstMetric(d, t, v, labels...)
	if err != nil {
		m = prometheus.NewInvalidMetric(d, err)
	}
	c.ch <- m
}

func (c *collection) endpoint(e *Endpoint) {
	var seconds histogramSum
	var begun, ended, in, out uint64
	c.sums = nil
	e.shards.each(func(s *endpointShard) {
		// What has ended is read before what has begun, which is never less.
		s.codes.each(func(key uint32, n uint64) {
			c.sum(key, n)
			ended += n
		})
		begun += s.begun.Load()
		in += s.bytesIn.Load()
		out += s.bytesOut.Load()
		seconds.add(&s.seconds)
	})
	c.value(inFlightDesc, prometheus.GaugeValue, float64(int64(begun-ended)), e.name)
	for key, n := range c.sums {
		c.value(requestsDesc, prometheus.CounterValue, float64(n), e.name, codeLabel(key), methods[key&(1<<methodBits-1)])
	}
	c.value(bytesInDesc, prometheus.CounterValue, float64(in), e.name)
	c.value(bytesOutDesc, prometheus.CounterValue, float64(out), e.name)
	c.histogram(durationDesc, &seconds, e.name)
}

func (c *collection) backend(e *Endpoint, b *Backend) {
	if up, ok := b.up(); ok {
		value := 0.0
		if up {
			value = 1
		}
		c.value(backendUpDesc, prometheus.GaugeValue, value, e.name, b.url)
	}
	var seconds histogramSum
	var errors [reasons]uint64
	c.sums = nil
	b.shards.each(func(s *backendShard) {
		s.codes.each(c.sum)
		for i := range errors {
			errors[i] += s.errors[i].Load()
		}
		seconds.add(&s.seconds)
	})
	for key, n := range c.sums {
		c.value(backendRequestsDesc, prometheus.CounterValue, float64(n), e.name, b.url, codeLabel(key))
	}
	for i, n := range errors {
		c.value(backendErrorsDesc, prometheus.CounterValue, float64(n), e.name, b.url, reasonLabels[i])
	}
	c.histogram(backendDurationDesc, &seconds, e.name, b.url)
}

func (c *collection) sum(key uint32, n uint64) {
	if c.sums == nil {
		c.sums = map[uint32]uint64{}
	}
	c.sums[key] += n
}

func (c *collection) histogram(d *prometheus.Desc, h *histogramSum, labels ...string) {
	buckets := make(map[float64]uint64, len(routetable.DurationBounds))
	var n uint64
	for i, bound := range routetable.DurationBounds {
		n += h.buckets[i]
		buckets[bound.Seconds()] = n
	}
	n += h.buckets[Buckets-1]
	m, err := prometheus.NewConstHistogram(d, n, float64(h.nanoseconds)/1e9, buckets, labels...)
	if err != nil {
		m = prometheus.NewInvalidMetric(d, err)
	}
	c.ch <- m
}

// histogramSum is the sum of several shards' histograms.
type histogramSum struct {
	buckets     [Buckets]uint64
	nanoseconds uint64
}

func (sum *histogramSum) add(h *histogram) {
	for i := range sum.buckets {
		sum.buckets[i] += h.buckets[i].Load()
	}
	sum.nanoseconds += h.sum.Load()
}
