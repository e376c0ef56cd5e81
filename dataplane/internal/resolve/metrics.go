package resolve

import "github.com/prometheus/client_golang/prometheus"

var (
	lookupsDesc = prometheus.NewDesc("dataplane_dns_lookups_total",
		"Lookups of the names of backends, by result: success, failure.", []string{"host", "result"}, nil)
	addressesDesc = prometheus.NewDesc("dataplane_dns_addresses",
		"Addresses that the name of a backend stands for; they stay when lookups fail.", []string{"host"}, nil)
)

// Describe implements prometheus.Collector.
func (r *Resolver) Describe(ch chan<- *prometheus.Desc) {
	ch <- lookupsDesc
	ch <- addressesDesc
}

// Collect implements prometheus.Collector. Names are exposed while they are in
// use.
func (r *Resolver) Collect(ch chan<- prometheus.Metric) {
	type sums struct{ succeeded, failed, addresses uint64 }
	hosts := map[string]sums{}
	r.mu.Lock()
	for n, f := range r.names {
		// The same host with several ports has the same addresses.
		list, _ := n.Addresses()
		s := hosts[n.Host()]
		hosts[n.Host()] = sums{s.succeeded + f.succeeded, s.failed + f.failed, max(s.addresses, uint64(len(list)))}
	}
	r.mu.Unlock()
	for host, s := range hosts {
		ch <- prometheus.MustNewConstMetric(lookupsDesc, prometheus.CounterValue, float64(s.succeeded), host, "success")
		ch <- prometheus.MustNewConstMetric(lookupsDesc, prometheus.CounterValue, float64(s.failed), host, "failure")
		ch <- prometheus.MustNewConstMetric(addressesDesc, prometheus.GaugeValue, float64(s.addresses), host)
	}
}
