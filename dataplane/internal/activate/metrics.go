package activate

import (
	"strconv"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// counts is the outcome of activations since start.
type counts struct {
	applied, rejected atomic.Uint64
	failed            atomic.Bool // the last one
}

func (c *counts) add(ok bool) {
	if ok {
		c.applied.Add(1)
	} else {
		c.rejected.Add(1)
	}
	c.failed.Store(!ok)
}

var (
	infoDesc = prometheus.NewDesc("dataplane_config_info",
		"The route table in force, in labels; the value is 1.", []string{"version", "revision", "source"}, nil)
	updatesDesc = prometheus.NewDesc("dataplane_config_updates_total",
		"Attempts to put a route table in force, by result: applied or rejected.", []string{"result"}, nil)
	lastDesc = prometheus.NewDesc("dataplane_config_last_update_successful",
		"Whether the newest route table was put in force; 1 before the first.", nil, nil)
	appliedAtDesc = prometheus.NewDesc("dataplane_config_applied_timestamp_seconds",
		"When the route table in force was applied, in Unix time.", nil, nil)
)

// Describe implements prometheus.Collector.
func (a *Activator) Describe(ch chan<- *prometheus.Desc) {
	ch <- infoDesc
	ch <- updatesDesc
	ch <- lastDesc
	ch <- appliedAtDesc
}

// Collect implements prometheus.Collector.
func (a *Activator) Collect(ch chan<- prometheus.Metric) {
	if f := a.InForce(); f != nil {
		ch <- prometheus.MustNewConstMetric(infoDesc, prometheus.GaugeValue, 1,
			f.Table.Version, strconv.FormatUint(f.Revision, 10), string(f.Source))
		ch <- prometheus.MustNewConstMetric(appliedAtDesc, prometheus.GaugeValue, float64(f.AppliedAt.UnixMilli())/1e3)
	}
	ch <- prometheus.MustNewConstMetric(updatesDesc, prometheus.CounterValue, float64(a.counts.applied.Load()), "applied")
	ch <- prometheus.MustNewConstMetric(updatesDesc, prometheus.CounterValue, float64(a.counts.rejected.Load()), "rejected")
	ok := 1.0
	if a.counts.failed.Load() {
		ok = 0
	}
	ch <- prometheus.MustNewConstMetric(lastDesc, prometheus.GaugeValue, ok)
}
