package fleet

import (
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	fleetv1 "reverseproxy/proto/fleet/v1"
)

// Results of a push, as label values.
const (
	pushApplied   = "applied"
	pushRejected  = "rejected"
	pushAbandoned = "abandoned" // a newer version came before all was sent
	pushFailed    = "failed"    // the stream ended before the answer
	pushResent    = "resent"    // a delta that could not be used
)

// metrics counts what cannot be derived from the state.
type metrics struct {
	pushes      *prometheus.CounterVec
	convergence prometheus.Histogram
	spread      prometheus.Histogram
	tables      *prometheus.CounterVec
	bytes       *prometheus.CounterVec
	// whole and delta are the parts of tables and bytes.
	whole, delta sent
}

// sent counts the tables that were sent in one of two ways.
type sent struct{ tables, bytes prometheus.Counter }

func newMetrics() *metrics {
	m := &metrics{
		pushes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "controlplane_pushes_total",
			Help: "Route tables sent to data planes, by what became of them: applied, rejected, abandoned for a newer one, failed with the stream, resent as a whole because a delta could not be used.",
		}, []string{"result"}),
		tables: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "controlplane_tables_sent_total",
			Help: "Route tables that were begun to be sent to data planes, by how: whole, or as what differs from the table that the data plane serves.",
		}, []string{"kind"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "controlplane_table_bytes_sent_total",
			Help: "Bytes of route tables that were sent to data planes.",
		}, []string{"kind"}),
		convergence: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "controlplane_convergence_seconds",
			Help:    "Time from the acceptance of a change, or from the connection of a data plane that came later, until that data plane has applied it.",
			Buckets: []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300},
		}),
		spread: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "controlplane_switch_spread_seconds",
			Help:    "Time between the first and the last data plane that was seen to have switched to a table that all had prepared.",
			Buckets: []float64{0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10},
		}),
	}
	for _, result := range []string{pushApplied, pushRejected, pushAbandoned, pushFailed, pushResent} {
		m.pushes.WithLabelValues(result)
	}
	m.whole = sent{m.tables.WithLabelValues("whole"), m.bytes.WithLabelValues("whole")}
	m.delta = sent{m.tables.WithLabelValues("delta"), m.bytes.WithLabelValues("delta")}
	return m
}

var (
	dataplanesDesc = prometheus.NewDesc("controlplane_dataplanes",
		"Known data planes by where they stand with respect to the desired version.", []string{"state"}, nil)
	configInfoDesc = prometheus.NewDesc("controlplane_config_info",
		"The desired route table; always 1.", []string{"version", "revision"}, nil)
	drainedDesc = prometheus.NewDesc("controlplane_drained_backends",
		"Backends that get no new requests because they were drained.", nil, nil)
)

// Describe implements prometheus.Collector.
func (f *Fleet) Describe(ch chan<- *prometheus.Desc) {
	f.metrics.pushes.Describe(ch)
	f.metrics.convergence.Describe(ch)
	f.metrics.spread.Describe(ch)
	f.metrics.tables.Describe(ch)
	f.metrics.bytes.Describe(ch)
	ch <- dataplanesDesc
	ch <- configInfoDesc
	ch <- drainedDesc
}

// Collect implements prometheus.Collector. What is state is derived from the
// state at that moment, so that it cannot drift from it.
func (f *Fleet) Collect(ch chan<- prometheus.Metric) {
	f.metrics.pushes.Collect(ch)
	f.metrics.convergence.Collect(ch)
	f.metrics.spread.Collect(ch)
	f.metrics.tables.Collect(ch)
	f.metrics.bytes.Collect(ch)
	counts := f.counts()
	for _, s := range []fleetv1.DataPlaneState{stateApplied, statePending, stateRejected, stateStale, stateDisconnected} {
		ch <- prometheus.MustNewConstMetric(dataplanesDesc, prometheus.GaugeValue, float64(counts[s]), StateName(s))
	}
	ch <- prometheus.MustNewConstMetric(drainedDesc, prometheus.GaugeValue, float64(f.countDrained()))
	if t := f.Desired(); t != nil {
		ch <- prometheus.MustNewConstMetric(configInfoDesc, prometheus.GaugeValue, 1, t.Version, strconv.FormatUint(t.Revision, 10))
	}
}

// StateName returns the word for a state, as in every output.
func StateName(s fleetv1.DataPlaneState) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "DATA_PLANE_STATE_"))
}
