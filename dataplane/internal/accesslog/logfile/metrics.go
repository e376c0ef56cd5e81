package logfile

import "github.com/prometheus/client_golang/prometheus"

var (
	linesDesc = prometheus.NewDesc("dataplane_access_log_lines_total",
		"Lines of the access log that have been written.", nil, nil)
	droppedDesc = prometheus.NewDesc("dataplane_access_log_dropped_total",
		"Lines of the access log that have been lost because they could not be written in time.", nil, nil)
	failuresDesc = prometheus.NewDesc("dataplane_access_log_failures_total",
		"Attempts to open or to write the access log that have failed.", nil, nil)
)

// Describe implements prometheus.Collector.
func (w *Writer) Describe(ch chan<- *prometheus.Desc) {
	ch <- linesDesc
	ch <- droppedDesc
	ch <- failuresDesc
}

// Collect implements prometheus.Collector.
func (w *Writer) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.MustNewConstMetric(linesDesc, prometheus.CounterValue, float64(w.written.Load()))
	ch <- prometheus.MustNewConstMetric(droppedDesc, prometheus.CounterValue, float64(w.lines.Dropped()+w.lost.Load()))
	ch <- prometheus.MustNewConstMetric(failuresDesc, prometheus.CounterValue, float64(w.failures.Load()))
}
