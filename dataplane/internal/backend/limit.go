package backend

import "slices"

// Watcher waits for requests of a backend to end.
type Watcher interface{ Freed() }

// Watch has w.Freed called whenever a request ends, until Unwatch. It is meant for
// times at which the backend is full.
func (s *State) Watch(w Watcher) {
	s.changeWatchers(func(list []Watcher) []Watcher { return append(list, w) })
}

// Unwatch is the counterpart of Watch.
func (s *State) Unwatch(w Watcher) {
	s.changeWatchers(func(list []Watcher) []Watcher {
		if i := slices.Index(list, w); i >= 0 {
			return slices.Delete(list, i, i+1)
		}
		return list
	})
}

func (s *State) changeWatchers(change func([]Watcher) []Watcher) {
	for {
		before := s.watchers.Load()
		var list []Watcher
		if before != nil {
			list = slices.Clone(*before)
		}
		after := &list
		if list = change(list); len(list) == 0 {
			after = nil
		}
		if s.watchers.CompareAndSwap(before, after) {
			return
		}
	}
}

// freed tells those who wait that a request has ended.
func (s *State) freed(watchers []Watcher) {
	for _, w := range watchers {
		w.Freed()
	}
}

// SetMost sets how many requests may be in flight at the address before the member is
// full, whoever has sent them; 0: any number.
func (m *Member) SetMost(n int64) { m.most.Store(n) }

// Full reports whether the member gets no more requests for now.
func (m *Member) Full() bool {
	most := m.most.Load()
	return most > 0 && m.State.InFlight() >= most
}

// TryBegin is State.Begin unless the member is full; it reports whether it was not.
func (m *Member) TryBegin() bool {
	most := m.most.Load()
	if most == 0 {
		m.State.Begin()
		return true
	}
	for {
		n := m.State.inFlight.Load()
		if n >= most {
			return false
		}
		if m.State.inFlight.CompareAndSwap(n, n+1) {
			return true
		}
	}
}
