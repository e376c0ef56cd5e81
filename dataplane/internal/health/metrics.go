package health

import "github.com/prometheus/client_golang/prometheus"

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("dataplane_"+name, help, labels, nil)
}

var (
	checksDesc = desc("health_checks_total",
		"Probes of a backend (host:port of its URL), by result: success, failure.", "backend", "result")
	membersDesc = desc("backend_members",
		"Addresses of a backend that has a health check or a name, by state: usable, unhealthy, ejected.", "endpoint", "backend", "state")
	ejectionsDesc = desc("backend_ejections_total",
		"Ejections of a backend by its endpoint's passive check.", "endpoint", "backend")
)

// Describe implements prometheus.Collector.
func (m *Manager) Describe(ch chan<- *prometheus.Desc) {
	ch <- checksDesc
	ch <- membersDesc
	ch <- ejectionsDesc
	m.names.Describe(ch)
}

// Collect implements prometheus.Collector.
func (m *Manager) Collect(ch chan<- prometheus.Metric) {
	for _, metric := range m.collect() {
		ch <- metric
	}
	m.names.Collect(ch)
}

// collect returns the metrics: whoever takes them may be slow.
func (m *Manager) collect() (metrics []prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	value := func(d *prometheus.Desc, t prometheus.ValueType, v uint64, labels ...string) {
		metrics = append(metrics, prometheus.MustNewConstMetric(d, t, float64(v), labels...))
	}
	for label, c := range m.checks {
		value(checksDesc, prometheus.CounterValue, c.succeeded, label, "success")
		value(checksDesc, prometheus.CounterValue, c.failed, label, "failure")
	}
	for _, e := range m.endpoints {
		for url, s := range e.sums() {
			value(membersDesc, prometheus.GaugeValue, s.usable, e.Name, url, "usable")
			value(membersDesc, prometheus.GaugeValue, s.unhealthy, e.Name, url, "unhealthy")
			value(membersDesc, prometheus.GaugeValue, s.ejected, e.Name, url, "ejected")
			if e.PassiveCheck != nil {
				value(ejectionsDesc, prometheus.CounterValue, s.ejections, e.Name, url)
			}
		}
	}
	return metrics
}

type sums struct{ usable, unhealthy, ejected, ejections uint64 }

// sums adds up the members of each backend of an endpoint, by URL. The caller
// holds Manager.mu.
func (e *endpoint) sums() map[string]sums {
	byURL := map[string]sums{}
	for _, b := range e.Pool.Backends {
		byURL[b.URL] = sums{}
	}
	for _, b := range e.members {
		s := byURL[b.backend.URL]
		switch {
		case !b.Healthy():
			s.unhealthy++
		case b.Ejected():
			s.ejected++
		default:
			s.usable++
		}
		s.ejections += b.ejection.total
		byURL[b.backend.URL] = s
	}
	return byURL
}
