package traffic

import (
	"fmt"
	"sync"
	"testing"
	"time"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

// BenchmarkObserve is the heartbeats of 1,000 data planes, each with requests at 100
// endpoints and 100 samples: what comes in five seconds, on all CPUs.
func BenchmarkObserve(b *testing.B) {
	const planes, endpoints = 1000, 100
	now := time.Now()
	var sessions []*Session
	s := New(func() time.Time { return now })
	beats := make([]*routetablev1.Heartbeat, planes)
	for i := range planes {
		sessions = append(sessions, s.Session(fmt.Sprint("dp-", i)))
		h := &routetablev1.Heartbeat{Traffic: answered(0)}
		for e := range endpoints {
			h.Endpoints = append(h.Endpoints, rate(fmt.Sprintf("endpoint-%06d", e), 0, 10, 1))
			h.Samples = append(h.Samples, &routetablev1.Sample{
				Method: "GET", Host: "shop.example.com", Path: fmt.Sprint("/service/", e), Endpoint: fmt.Sprintf("endpoint-%06d", e), Weight: 50,
			})
		}
		beats[i] = h
	}
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(5 * time.Second)
		var g sync.WaitGroup
		for part := range 4 {
			g.Go(func() {
				for i := part; i < planes; i += 4 {
					beats[i].Traffic.Requests += 5000
					sessions[i].Observe(beats[i], now)
				}
			})
		}
		g.Wait()
		s.Sweep()
	}
}

// BenchmarkRates is one look at the rates of such a fleet.
func BenchmarkRates(b *testing.B) {
	now := time.Now()
	s := New(func() time.Time { return now })
	for i := range 1000 {
		h := &routetablev1.Heartbeat{Traffic: answered(0)}
		for e := range 1000 {
			h.Endpoints = append(h.Endpoints, rate(fmt.Sprintf("endpoint-%06d", e), 0, 10, 1))
		}
		s.Session(fmt.Sprint("dp-", i)).Observe(h, now)
	}
	for b.Loop() {
		if n := len(s.Rates().Endpoints); n != 1000 {
			b.Fatal(n)
		}
	}
}
