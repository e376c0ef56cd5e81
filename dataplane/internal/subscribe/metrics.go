package subscribe

import "github.com/prometheus/client_golang/prometheus"

var (
	connectedDesc = prometheus.NewDesc("dataplane_controlplane_connected",
		"Whether a control plane answers on the stream.", nil, nil)
	lastContactDesc = prometheus.NewDesc("dataplane_controlplane_last_contact_timestamp_seconds",
		"When a control plane was last heard, in Unix time; absent before the first time. Its age is the staleness of the configuration.", nil, nil)
	storeFailuresDesc = prometheus.NewDesc("dataplane_config_store_failures_total",
		"Applied route tables that could not be kept on disk.", nil, nil)
)

// Describe implements prometheus.Collector.
func (s *Subscriber) Describe(ch chan<- *prometheus.Desc) {
	ch <- connectedDesc
	ch <- lastContactDesc
	ch <- storeFailuresDesc
}

// Collect implements prometheus.Collector.
func (s *Subscriber) Collect(ch chan<- prometheus.Metric) {
	connected := 0.0
	if s.connected.Load() {
		connected = 1
	}
	ch <- prometheus.MustNewConstMetric(connectedDesc, prometheus.GaugeValue, connected)
	if at := s.lastContact.Load(); at != 0 {
		ch <- prometheus.MustNewConstMetric(lastContactDesc, prometheus.GaugeValue, float64(at)/1e3)
	}
	ch <- prometheus.MustNewConstMetric(storeFailuresDesc, prometheus.CounterValue, float64(s.storeFailures.Load()))
}
