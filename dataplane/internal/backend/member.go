package backend

import "sync/atomic"

// Member is what one endpoint knows about one address of one of its backends:
// whether it may be used. Another endpoint may see the same address otherwise, by
// its own checks. Package table finds it by endpoint, URL and address, and gives it
// to the next table. All methods may be called from several goroutines.
type Member struct {
	State *State // of the address

	// out holds the reasons for which it is not to be used; 0: it is usable.
	out atomic.Uint32
}

// The reasons.
const (
	unhealthy uint32 = 1 << iota
	ejected
)

// NewMember returns a member that is usable.
func NewMember(s *State) *Member { return &Member{State: s} }

// SetHealthy records what active checks have found out. Whoever calls it refreshes
// the pool.
func (m *Member) SetHealthy(healthy bool) { m.set(unhealthy, !healthy) }

// SetEjected records whether it is out of use because requests have failed.
// Whoever calls it refreshes the pool.
func (m *Member) SetEjected(is bool) { m.set(ejected, is) }

func (m *Member) set(reason uint32, holds bool) {
	if holds {
		m.out.Or(reason)
	} else {
		m.out.And(^reason)
	}
}

// Usable reports whether it is healthy and not ejected.
func (m *Member) Usable() bool { return m.out.Load() == 0 }

// Succeeded tells that the head of a response has come from it, Failed that an
// attempt to get one from it has failed. Both belong on the request path.
func (m *Member) Succeeded() {}

// Failed is the counterpart of Succeeded.
func (m *Member) Failed() {}
