package fleet

import (
	"slices"
	"strings"
	"time"

	fleetv1 "reverseproxy/proto/fleet/v1"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// MaxDrained is how many backends may be drained at once: every data plane counts
// for each of them what is in flight.
const MaxDrained = 1000

// Drained is a backend that gets no new requests, because somebody said so.
type Drained struct {
	// URL is as in the pools.
	URL string
	// Configured is whether the desired table has it.
	Configured bool
}

// SetDrained says which backends are drained. It is to be called after the Publish of
// a table in which they have weight 0. The data planes are asked from then on how many
// requests are in flight to them.
func (f *Fleet) SetDrained(drained []Drained) {
	drained = slices.SortedFunc(slices.Values(drained), func(a, b Drained) int { return strings.Compare(a.URL, b.URL) })
	f.mu.Lock()
	defer f.mu.Unlock()
	if slices.Equal(drained, f.drained) {
		return
	}
	f.drained = drained
	for _, sessions := range f.sessions {
		for _, s := range sessions {
			s.ask(false)
		}
	}
}

// takeReport returns what the session is to be asked.
func (f *Fleet) takeReport(s *session) *routetablev1.Report {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := &routetablev1.Report{Backends: s.askBackends}
	s.askBackends = false
	for _, d := range f.drained {
		r.Watch = append(r.Watch, d.URL)
	}
	return r
}

// watched takes what a heartbeat says about the backends that are watched. f.mu is
// held.
func (f *Fleet) watched(s *session, h *routetablev1.Heartbeat) {
	if len(h.GetWatched()) == 0 {
		return
	}
	s.toldOf, s.toldUnder = map[string]uint64{}, h.GetState().GetVersion()
	for _, w := range h.GetWatched() {
		if f.isDrained(w.GetUrl()) {
			s.toldOf[w.GetUrl()] = w.GetRequests()
		}
	}
}

// Drained reports whether a backend is drained.
func (f *Fleet) Drained(url string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.isDrained(url)
}

// isDrained reports whether a backend is drained. f.mu is held.
func (f *Fleet) isDrained(url string) bool {
	_, found := slices.BinarySearchFunc(f.drained, url, func(d Drained, url string) int { return strings.Compare(d.URL, url) })
	return found
}

// countDrained returns how many backends are drained.
func (f *Fleet) countDrained() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.drained)
}

// draining describes the drained backends. f.mu is held.
func (f *Fleet) draining(goal *Goal, now time.Time) []*fleetv1.DrainedBackend {
	list := make([]*fleetv1.DrainedBackend, 0, len(f.drained))
	for _, d := range f.drained {
		b := &fleetv1.DrainedBackend{Url: d.URL, Configured: d.Configured}
		for id := range f.sessions {
			for _, s := range f.visible(id) {
				f.hold(b, s, goal, now)
			}
		}
		slices.SortFunc(b.Holders, func(a, b *fleetv1.DrainHolder) int { return strings.Compare(a.GetId(), b.GetId()) })
		list = append(list, b)
	}
	return list
}

// hold adds a session to what is known about a drained backend. Nothing is in flight
// for good when it has said so about the version that it is to run, in which the
// backend gets nothing, and has applied no other version since. f.mu is held.
func (f *Fleet) hold(b *fleetv1.DrainedBackend, s *session, goal *Goal, now time.Time) {
	n, known := s.toldOf[b.GetUrl()]
	told := known && f.settled(s, goal, now) && s.toldUnder == s.version
	if s.connected && n > 0 {
		b.InFlight += n
		b.DataPlanes++
	}
	if !told || n > 0 {
		b.Holders = append(b.Holders, &fleetv1.DrainHolder{Id: s.id, SessionId: s.sessionID, Told: told, InFlight: n})
	}
}
