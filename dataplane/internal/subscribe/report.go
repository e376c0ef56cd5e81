package subscribe

import (
	"time"

	"reverseproxy/dataplane/internal/metrics"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// Bounds of what one heartbeat tells about backends, and again about endpoints: a
// control plane that serves a thousand data planes reads all of it.
const (
	maxReports     = 2000
	maxReportBytes = 200 << 10 // of names; the numbers are a quarter of that
	// reportInterval is the shortest time between two such reports: rates over less
	// would be noise.
	reportInterval = 500 * time.Millisecond
	// countShare is how much longer than counting what is in flight the time is after
	// which it is done again: with 100,000 endpoints in use it takes 0.16 s.
	countShare = 10
)

// reporter makes the heartbeats of one stream. It belongs to the sender.
type reporter struct {
	s        *Subscriber
	news     *metrics.Reporter
	reported time.Time // when news was reported last
	watched  []string  // by URL
	recount  time.Time // when they may be counted again
}

func (s *Subscriber) newReporter() *reporter {
	return &reporter{s: s, news: s.o.Metrics.NewReporter(time.Now())}
}

// heartbeat returns the next heartbeat, with the news about backends, endpoints and
// requests or without.
func (r *reporter) heartbeat(news bool) *routetablev1.SubscribeRequest {
	m := r.s.heartbeat() // the state first, see routetable.proto
	h := m.GetHeartbeat()
	now := time.Now()
	if len(r.watched) > 0 && !now.Before(r.recount) {
		for i, n := range r.s.o.Metrics.InFlight(r.watched) {
			h.Watched = append(h.Watched, &routetablev1.InFlight{Url: r.watched[i], Requests: n})
		}
		took := time.Since(now)
		now = now.Add(took)
		r.recount = now.Add(countShare * took)
	}
	if !news || now.Sub(r.reported) < reportInterval {
		return m
	}
	r.reported = now
	backends, endpoints := r.news.Next(now, metrics.Room{Rows: maxReports, Bytes: maxReportBytes})
	for _, b := range backends {
		h.Backends = append(h.Backends, &routetablev1.BackendReport{
			Endpoint: b.Endpoint, Url: b.Backend, Requests: b.Requests, Failures: b.Failures, InFlight: b.InFlight,
			RequestsPerSecond: b.RequestRate, FailuresPerSecond: b.FailureRate, Trouble: wireText(b.Trouble),
		})
	}
	for _, e := range endpoints {
		h.Endpoints = append(h.Endpoints, &routetablev1.EndpointReport{
			Endpoint: e.Endpoint, Requests: e.Requests, Failures: e.Failures,
			RequestsPerSecond: e.RequestRate, FailuresPerSecond: e.FailureRate, NewRequests: e.New,
		})
	}
	h.Samples = r.s.samples()
	return m
}

// samples returns samples of the requests since the last call.
func (s *Subscriber) samples() (list []*routetablev1.Sample) {
	if s.o.Samples == nil {
		return nil
	}
	for _, x := range s.o.Samples.Take(s.o.Metrics.Answered(nil)) {
		list = append(list, &routetablev1.Sample{
			Method: x.Method, Host: x.Host, Path: x.Path, Endpoint: x.Endpoint, Weight: x.Weight,
		})
	}
	return list
}

// ask hands what the control plane wants to know to the sender. It never waits: of
// two that have not been answered yet the newer one counts, and stands for both.
// Only the receiver calls it.
func (x *session) ask(r *routetablev1.Report) {
	for {
		select {
		case x.asked <- r:
			return
		default:
		}
		select {
		case before := <-x.asked:
			r.Backends = r.GetBackends() || before.GetBackends()
		default:
		}
	}
}
