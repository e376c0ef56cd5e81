package backend

import (
	"sync/atomic"
	"time"
)

// Member is what one endpoint knows about one address of one of its backends:
// whether it may be used. Another endpoint may see the same address otherwise, by
// its own checks. Package table finds it by endpoint, URL and address, and gives it
// to the next table. All methods may be called from several goroutines.
type Member struct {
	State *State // of the address

	// out holds the reasons for which it is not to be used; 0: it is usable.
	out     atomic.Uint32
	trouble atomic.Pointer[string] // in words
	// back is when it came back; nil: it has been there from the start.
	back atomic.Pointer[time.Time]

	most atomic.Int64 // see SetMost
	// failures are those in a row since Watch. Nobody counts them while watch is nil.
	failures atomic.Uint32
	watch    atomic.Pointer[watch]
}

// watch is who is told of how many failures in a row.
type watch struct {
	limit uint32
	trips chan<- *Member
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
	} else if m.out.And(^reason) == reason {
		m.ComeBack()
	}
}

// ComeBack makes it one that has come back now, to a pool that others are used in.
func (m *Member) ComeBack() {
	now := time.Now()
	m.back.Store(&now)
}

// Whole is the share of a member that need not start slowly any more.
const Whole = 10

// Share returns how much of what its weight says a member gets when that grows for
// some time after it has come back: from 1 to Whole, and after which time that grows
// again; 0: it does not.
func (m *Member) Share(slowStart time.Duration) (tenths uint32, grows time.Duration) {
	at := m.back.Load()
	if at == nil {
		return Whole, 0
	}
	up := time.Since(*at)
	if up >= slowStart {
		return Whole, 0
	}
	step := max(slowStart/(Whole-1), 1)
	steps := uint32(up / step)
	if steps >= Whole-1 { // the division has left something
		return Whole - 1, slowStart - up
	}
	return 1 + steps, step - up%step
}

// Usable reports whether it is healthy and not ejected.
func (m *Member) Usable() bool { return m.out.Load() == 0 }

// Healthy reports what SetHealthy has recorded; true at first.
func (m *Member) Healthy() bool { return m.out.Load()&unhealthy == 0 }

// Ejected reports what SetEjected has recorded.
func (m *Member) Ejected() bool { return m.out.Load()&ejected != 0 }

// SetTrouble records why the member is not usable, for people; empty when it is.
func (m *Member) SetTrouble(text string) { m.trouble.Store(&text) }

// Trouble returns what SetTrouble has recorded.
func (m *Member) Trouble() string {
	if t := m.trouble.Load(); t != nil {
		return *t
	}
	return ""
}

// Watch has the member sent to trips each time that limit attempts in a row have
// failed; 0: never. When there is no room in trips, it is sent with one of the next
// failures.
func (m *Member) Watch(limit uint32, trips chan<- *Member) {
	if limit == 0 {
		m.watch.Store(nil)
		return
	}
	if w := m.watch.Load(); w == nil || *w != (watch{limit, trips}) {
		m.failures.Store(0)
		m.watch.Store(&watch{limit, trips})
	}
}

// Succeeded tells that the head of a response has come from it, Failed that an
// attempt to get one from it has failed. Both belong on the request path.
func (m *Member) Succeeded() {
	// Nearly always there was no failure, and then no core loses the cache line.
	if m.failures.Load() != 0 {
		m.failures.Store(0)
	}
}

// Failed is the counterpart of Succeeded.
func (m *Member) Failed() {
	w := m.watch.Load()
	if w == nil || m.failures.Add(1) < w.limit {
		return
	}
	select {
	case w.trips <- m:
		m.failures.Store(0)
	default:
	}
}
