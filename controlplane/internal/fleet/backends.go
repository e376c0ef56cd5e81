package fleet

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	fleetv1 "reverseproxy/proto/fleet/v1"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// Bounds of what is kept of reports about backends.
const (
	// maxRows is over all data planes: some 200 MB.
	maxRows = 1_000_000
	// spareRows is by how much a data plane may report more backends than the table
	// has that it is to run: it may serve another one.
	spareRows = 1000
	// maxTroubles is how many reasons are told about one backend.
	maxTroubles = 10
)

// backendKey names a backend of an endpoint.
type backendKey struct{ endpoint, url string }

// row is the last report about a backend.
type row struct {
	requests, failures, inFlight uint64
	requestRate, failureRate     float64
	trouble                      string
}

// rows is what one session has reported about its backends. It has a lock of its
// own, which is taken after Fleet.mu: thousands of reports delay no stream.
type rows struct {
	mu sync.Mutex
	of map[backendKey]row
	// troubled are those of them that have a trouble.
	troubled map[backendKey]struct{}
	// pruned is the version by which prune has worked last.
	pruned string
	// closed: the session is over, and nothing is kept any more.
	closed bool
}

// observe takes the rows of a heartbeat.
func (f *Fleet) observe(s *session, reports []*routetablev1.BackendReport) {
	goal := f.goal.Load()
	if len(reports) == 0 || goal == nil {
		return
	}
	t := goal.of(s)
	s.rows.mu.Lock()
	defer s.rows.mu.Unlock()
	if s.rows.closed {
		return
	}
	if s.rows.of == nil {
		s.rows.of, s.rows.troubled = map[backendKey]row{}, map[backendKey]struct{}{}
	}
	for _, r := range reports {
		key := backendKey{r.GetEndpoint(), r.GetUrl()}
		if _, known := s.rows.of[key]; !known {
			if len(s.rows.of) >= t.backends+spareRows || f.rows.Load() >= maxRows {
				f.crowded.Store(true)
				continue
			}
			f.rows.Add(1)
			key, _ = t.backend(key)
		}
		s.rows.of[key] = row{
			requests: r.GetRequests(), failures: r.GetFailures(), inFlight: r.GetInFlight(),
			requestRate: finite(r.GetRequestsPerSecond()), failureRate: finite(r.GetFailuresPerSecond()),
			trouble: shorten(r.GetTrouble()),
		}
		if r.GetTrouble() == "" {
			delete(s.rows.troubled, key)
		} else {
			s.rows.troubled[key] = struct{}{}
		}
	}
}

// finite keeps what a data plane says from being no number, or less than none.
func finite(x float64) float64 {
	if !(x > 0) || math.IsInf(x, 1) {
		return 0
	}
	return x
}

// discard gives up what a session has reported; it is over.
func (f *Fleet) discard(s *session) {
	s.traffic.Close()
	s.rows.mu.Lock()
	defer s.rows.mu.Unlock()
	f.rows.Add(-int64(len(s.rows.of)))
	s.rows.of, s.rows.troubled, s.rows.closed = nil, nil, true
	f.crowded.Store(false)
}

// prune gives up the rows of backends that the table has not. The data plane has
// applied it: should one come back, it will be reported anew.
func (f *Fleet) prune(s *session, t *Table) {
	s.rows.mu.Lock()
	defer s.rows.mu.Unlock()
	if s.rows.pruned == t.Version {
		return
	}
	s.rows.pruned = t.Version
	gone := func(key backendKey) bool { _, found := t.backend(key); return !found }
	before := len(s.rows.of)
	maps.DeleteFunc(s.rows.of, func(key backendKey, _ row) bool { return gone(key) })
	maps.DeleteFunc(s.rows.troubled, func(key backendKey, _ struct{}) bool { return gone(key) })
	f.rows.Add(int64(len(s.rows.of) - before))
	f.crowded.Store(false)
}

// Ask has every data plane report at once, about the backends that are watched, and
// about those of endpoints if that is wanted. It does not wait, and returns the time of the
// question; see Answered.
func (f *Fleet) Ask(backends bool) time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, sessions := range f.sessions {
		for _, s := range sessions {
			s.ask(backends)
		}
	}
	return f.opts.Now()
}

// Answered reports whether every data plane that is not silent has sent a heartbeat
// since.
func (f *Fleet) Answered(since time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.reporting() {
		if s.lastBeat.Before(since) {
			return false
		}
	}
	return true
}

// reporting returns the sessions whose reports count: connected and not silent.
// f.mu is held.
func (f *Fleet) reporting() []*session {
	now := f.opts.Now()
	var list []*session
	for id := range f.sessions {
		for _, s := range f.visible(id) {
			if s.connected && !f.silent(s, now) {
				list = append(list, s)
			}
		}
	}
	return list
}

// Backends describes the backends of an endpoint, in pool order, or, when the name
// is empty, of all endpoints that are in use, the busiest first. At most limit are
// listed, 0 means all. It returns nil when the desired table has no such endpoint.
func (f *Fleet) Backends(endpoint string, limit int) *fleetv1.BackendsResponse {
	f.mu.Lock()
	desired, sessions, drained := f.Desired(), f.reporting(), f.drained
	f.mu.Unlock()

	sums := map[backendKey]*backendSum{}
	a := &fleetv1.BackendsResponse{
		Version: desired.Version, Revision: desired.Revision, DataPlanes: uint32(len(sessions)), Incomplete: f.crowded.Load(),
	}
	if endpoint != "" {
		e := desired.endpoint(endpoint)
		if e == nil {
			return nil
		}
		for _, b := range e.GetPool() {
			sums[backendKey{endpoint, b.GetUrl()}] = &backendSum{}
		}
		for _, s := range sessions {
			s.rows.addTo(sums)
		}
		a.Backends = describeBackends(e, sums)
	} else {
		for _, s := range sessions {
			s.rows.addAllTo(sums)
		}
		for _, e := range desired.Proto.GetEndpoints() {
			a.Backends = append(a.Backends, describeBackends(e, sums)...)
		}
		slices.SortStableFunc(a.Backends, busier)
	}
	for _, b := range a.Backends {
		b.Draining = slices.ContainsFunc(drained, func(d Drained) bool { return d.URL == b.GetUrl() })
		a.RequestsPerSecond += b.GetRequestsPerSecond()
		a.FailuresPerSecond += b.GetFailuresPerSecond()
		a.InFlight += b.GetInFlight()
	}
	if limit > 0 && len(a.Backends) > limit {
		a.BackendsOmitted = uint32(len(a.Backends) - limit)
		a.Backends = a.Backends[:limit]
	}
	return a
}

// busier orders by requests per second, then by requests in flight.
func busier(a, b *fleetv1.BackendStatus) int {
	return cmp.Or(cmp.Compare(b.GetRequestsPerSecond(), a.GetRequestsPerSecond()), cmp.Compare(b.GetInFlight(), a.GetInFlight()))
}

// backendSum is a backend over several data planes.
type backendSum struct {
	row
	planes   uint32
	troubles map[string]uint32
	// shown is its description, once there is one.
	shown *fleetv1.BackendStatus
}

func (b *backendSum) add(r row) {
	b.requests += r.requests
	b.failures += r.failures
	b.inFlight += r.inFlight
	b.requestRate += r.requestRate
	b.failureRate += r.failureRate
	b.planes++
	if r.trouble != "" {
		if b.troubles == nil {
			b.troubles = map[string]uint32{}
		}
		b.troubles[r.trouble]++
	}
}

// addTo adds the rows to those sums that there are.
func (r *rows) addTo(sums map[backendKey]*backendSum) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, sum := range sums {
		if row, ok := r.of[key]; ok {
			sum.add(row)
		}
	}
}

// addAllTo adds all rows.
func (r *rows) addAllTo(sums map[backendKey]*backendSum) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, row := range r.of {
		sum := sums[key]
		if sum == nil {
			sum = &backendSum{}
			sums[key] = sum
		}
		sum.add(row)
	}
}

// describeBackends returns the backends of an endpoint of which there is a sum, each
// URL once.
func describeBackends(e *routetablev1.Endpoint, sums map[backendKey]*backendSum) []*fleetv1.BackendStatus {
	var list []*fleetv1.BackendStatus
	for _, b := range e.GetPool() {
		sum := sums[backendKey{e.GetName(), b.GetUrl()}]
		if sum == nil {
			continue
		}
		if sum.shown != nil {
			sum.shown.Weight += b.GetWeight()
			continue
		}
		d := &fleetv1.BackendStatus{
			Endpoint: e.GetName(), Url: b.GetUrl(), Weight: b.GetWeight(),
			DataPlanes: sum.planes, Healthy: sum.planes,
			Requests: sum.requests, Failures: sum.failures, InFlight: sum.inFlight,
			RequestsPerSecond: sum.requestRate, FailuresPerSecond: sum.failureRate,
		}
		for reason, n := range sum.troubles {
			d.Healthy -= n
			d.Troubles = append(d.Troubles, &fleetv1.Trouble{Reason: reason, DataPlanes: n})
		}
		slices.SortFunc(d.Troubles, func(a, b *fleetv1.Trouble) int {
			return cmp.Or(cmp.Compare(b.GetDataPlanes(), a.GetDataPlanes()), strings.Compare(a.GetReason(), b.GetReason()))
		})
		d.Troubles = d.Troubles[:min(len(d.Troubles), maxTroubles)]
		sum.shown = d
		list = append(list, d)
	}
	return list
}

// unhealthy counts the URLs of the table that one of the sessions has reported trouble
// with.
func unhealthy(sessions []*session, t *Table) int {
	urls := map[string]struct{}{}
	for _, s := range sessions {
		s.rows.mu.Lock()
		for key := range s.rows.troubled {
			if _, counted := urls[key.url]; counted {
				continue // in an outage every session has the same ones
			}
			if _, found := t.backend(key); found {
				urls[key.url] = struct{}{}
			}
		}
		s.rows.mu.Unlock()
	}
	return len(urls)
}
