package health

import (
	"cmp"
	"slices"
	"time"
)

// Status is what is known about one member of an endpoint's pool.
type Status struct {
	Endpoint string
	URL      string // of the backend
	Address  string // host:port
	Healthy  bool   // by the active check; true without one
	Ejected  bool   // by the passive check
	Reason   string // why it is not healthy or ejected, for people; empty when it is usable
	Since    time.Time
}

// Members returns the members of an endpoint's pool, in the order of their URLs and
// addresses; none for an endpoint that is not in use, or has neither a check nor
// a name.
func (m *Manager) Members(endpoint string) []Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.endpoints[endpoint]
	if e == nil {
		return nil
	}
	list := make([]Status, 0, len(e.members))
	for _, b := range e.members {
		list = append(list, b.status())
	}
	slices.SortFunc(list, func(a, b Status) int {
		return cmp.Or(cmp.Compare(a.URL, b.URL), cmp.Compare(a.Address, b.Address))
	})
	return list
}

// Unusable returns all members that are not healthy or are ejected.
func (m *Manager) Unusable() []Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []Status
	for _, b := range m.members {
		if !b.Usable() {
			list = append(list, b.status())
		}
	}
	slices.SortFunc(list, func(a, b Status) int {
		return cmp.Or(cmp.Compare(a.Endpoint, b.Endpoint), cmp.Compare(a.URL, b.URL), cmp.Compare(a.Address, b.Address))
	})
	return list
}

// status describes a member. The caller holds Manager.mu.
func (b *member) status() Status {
	s := Status{
		Endpoint: b.endpoint.Name, URL: b.backend.URL, Address: b.State.Addr(),
		Healthy: b.Healthy(), Ejected: b.Ejected(), Since: b.began,
	}
	if b.prober != nil {
		s.Since = b.prober.since
	}
	if s.Ejected {
		s.Reason, s.Since = b.ejection.reason, b.ejection.since
	}
	if !s.Healthy && b.prober != nil {
		s.Reason, s.Since = b.prober.reason, b.prober.since
	}
	return s
}
