package subscribe

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"reverseproxy/dataplane/internal/activate"
	"reverseproxy/dataplane/internal/metrics"
	"reverseproxy/dataplane/internal/sample"
)

// BenchmarkHeartbeat is a heartbeat that tells about requests, as it is sent every
// five seconds: of a data plane with few endpoints, and of one with very many that have
// all had requests, of which some or all have had some since the heartbeat before. Each
// has three backends. 20,000 requests come between two heartbeats.
func BenchmarkHeartbeat(b *testing.B) {
	for _, size := range []struct{ endpoints, busy int }{{10, 10}, {100_000, 1000}, {100_000, 20_000}} {
		b.Run(fmt.Sprintf("endpoints=%d/busy=%d", size.endpoints, size.busy), func(b *testing.B) {
			const requests = 20_000
			o := Options{Metrics: metrics.NewSet(2), Samples: sample.New(2), Activator: activate.New(activate.Options{})}
			endpoints := make([]*metrics.Endpoint, size.endpoints)
			backends := make([][3]*metrics.Backend, size.endpoints)
			request := func(i int) {
				if s := o.Samples.Shard(i % 2); s.Due() {
					s.Add([]byte("GET"), []byte("shop.example.com"), []byte("/service/some/thing"), "endpoint")
				}
				e, of := endpoints[i%len(endpoints)], backends[i%len(endpoints)][i%3]
				e.Begin(i % 2)
				of.Begin(i % 2)
				of.Response(i%2, 200, time.Millisecond)
				of.End(i % 2)
				e.End(i%2, &metrics.Request{Method: "GET", Code: 200, Duration: time.Millisecond})
			}
			for i := range endpoints {
				endpoints[i] = o.Metrics.Endpoint(fmt.Sprintf("endpoint-%06d", i))
				for j := range backends[i] {
					backends[i][j] = endpoints[i].Backend(fmt.Sprintf("http://10.%d.%d.%d:8080", j, i/250, i%250))
				}
				request(i)
			}
			r := New(o).newReporter()
			next := func() int {
				r.reported = time.Time{}
				return proto.Size(r.heartbeat(true))
			}
			for range size.endpoints*3/maxReports + 10 {
				next() // all that there is to tell once
			}
			var bytes int
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				for i := range requests {
					request(i % size.busy)
				}
				b.StartTimer()
				bytes += next()
			}
			b.ReportMetric(float64(bytes)/float64(b.N), "wire-B/op")
		})
	}
}
