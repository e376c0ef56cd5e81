package traffic

import (
	"cmp"
	"slices"
	"time"
	"unique"

	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

const (
	// maxRows is over all sessions.
	maxRows = 4_000_000
	// maxRowsOf is of one session: no table has more endpoints that are in use.
	maxRowsOf = 500_000
)

// name is the name of an endpoint: one text for all data planes that have it.
type name = unique.Handle[string]

// row is an endpoint that has requests on a data plane.
type row struct {
	requests, failures float32 // per second
	counted            float32 // requests since the last sweep
}

// takeRows takes what is told about endpoints. The caller holds plane.mu.
//
// Data planes tell of an endpoint once more when its requests have stopped, so what is
// not told anew goes on.
func (x *Session) takeRows(reports []*routetablev1.EndpointReport) {
	for _, r := range reports {
		if r.GetEndpoint() == "" || !proper(r.GetEndpoint(), routetable.MaxNameBytes) {
			continue
		}
		rate := finite(r.GetRequestsPerSecond())
		n := unique.Make(r.GetEndpoint())
		before, known := x.rows[n]
		if !known && (rate == 0 || !x.makeRoom()) {
			continue
		}
		x.rows[n] = row{
			requests: float32(rate), failures: float32(finite(r.GetFailuresPerSecond())),
			counted: before.counted + float32(r.GetNewRequests()),
		}
	}
}

// makeRoom accounts for one more row, if there is room.
func (x *Session) makeRoom() bool {
	if len(x.rows) >= maxRowsOf || x.store.room.Load() <= 0 {
		x.store.crowded.Store(true)
		return false
	}
	x.store.room.Add(-1)
	if x.rows == nil {
		x.rows = map[name]row{}
	}
	return true
}

// sum is an endpoint over several data planes.
type sum struct {
	requests, failures float64 // per second
	counted            float64 // requests
	planes             int
}

// sweep adds what the session has to sums, and gives up the rows that have no requests
// any more. The caller holds plane.mu.
func (x *Session) sweep(sums map[name]*sum, now time.Time) {
	counts := x.counts(now)
	for n, r := range x.rows {
		total := sums[n]
		if total == nil {
			total = &sum{}
			sums[n] = total
		}
		total.counted += float64(r.counted)
		if counts && r.requests > 0 {
			total.add(r)
		}
		if x.closed || r.requests == 0 {
			delete(x.rows, n)
			x.store.room.Add(1)
			x.store.crowded.Store(false)
			continue
		}
		if r.counted > 0 {
			r.counted = 0
			x.rows[n] = r
		}
	}
}

// add adds the rates of one data plane.
func (t *sum) add(r row) {
	t.requests += float64(r.requests)
	t.failures += float64(r.failures)
	t.planes++
}

// EndpointRate is an endpoint over the whole fleet. Requests that no endpoint took
// have the name routetable.NoEndpoint.
type EndpointRate struct {
	Endpoint string
	// Requests and Failures are per second, at the moment.
	Requests, Failures float64
	// DataPlanes is on how many it has requests at the moment.
	DataPlanes int
	// Recent is the number of requests in the last five minutes, those of data planes
	// that have left included.
	Recent float64
}

// Rates are those of all endpoints that have had requests in the last five minutes.
type Rates struct {
	// Endpoints, the busiest first.
	Endpoints []EndpointRate
	// RequestsPerSecond is over all data planes.
	RequestsPerSecond float64
	// DataPlanes have told about their requests and are not silent.
	DataPlanes int
	// Incomplete: there was no room for all that was told.
	Incomplete bool
}

// Rates returns the rates of the moment.
func (s *Store) Rates() Rates {
	now := s.now()
	rates := Rates{Incomplete: s.crowded.Load()}
	sums := map[name]*sum{}
	s.each(func(_ string, p *plane) {
		told := false
		for _, x := range p.sessions {
			if !x.counts(now) {
				continue
			}
			told = true
			rates.RequestsPerSecond += x.rate
			for n, r := range x.rows {
				total := sums[n]
				if total == nil {
					total = &sum{}
					sums[n] = total
				}
				total.counted += float64(r.counted)
				if r.requests > 0 {
					total.add(r)
				}
			}
		}
		if told {
			rates.DataPlanes++
		}
	})
	s.past.addTo(sums, now)
	for n, t := range sums {
		rates.Endpoints = append(rates.Endpoints, EndpointRate{
			Endpoint: n.Value(), Requests: t.requests, Failures: t.failures, DataPlanes: t.planes, Recent: t.counted,
		})
	}
	slices.SortFunc(rates.Endpoints, func(a, b EndpointRate) int {
		return cmp.Or(cmp.Compare(b.Requests, a.Requests), cmp.Compare(b.Recent, a.Recent), cmp.Compare(a.Endpoint, b.Endpoint))
	})
	return rates
}
