// Package backend holds what is known about backends and must outlive route
// tables: requests in flight, whether they can be reached. State is found by
// address, never rebuilt because a table changed. The table refers to it, the
// request path updates it, metrics read it.
package backend

import (
	"sync"
	"sync/atomic"
	"time"
)

// State is one backend's state, shared by every endpoint whose pool names the
// same address. All methods may be called from several goroutines.
type State struct {
	addr     string
	inFlight atomic.Int64
	watchers atomic.Pointer[[]Watcher] // nil: there are none
	down     atomic.Bool
}

// Addr returns host:port to connect to.
func (s *State) Addr() string { return s.addr }

// Begin counts a request that has been given to the backend, End one that has
// been answered or has failed.
func (s *State) Begin() { s.inFlight.Add(1) }

// End is the counterpart of Begin.
func (s *State) End() {
	s.inFlight.Add(-1)
	if w := s.watchers.Load(); w != nil {
		s.freed(*w)
	}
}

// InFlight returns requests begun and not ended.
func (s *State) InFlight() int64 { return s.inFlight.Load() }

// SetUp records whether the last attempt to connect succeeded.
func (s *State) SetUp(up bool) {
	// Nearly always nothing changes, and then no other core loses the cache line.
	if s.down.Load() == up {
		s.down.Store(!up)
	}
}

// Up reports it; true until an attempt has failed.
func (s *State) Up() bool { return !s.down.Load() }

// Registry finds the state of a backend by its address. All methods may be
// called from several goroutines; none belongs on the request path.
type Registry struct {
	later later

	mu     sync.Mutex // guards states and names
	states map[string]*State
	names  map[string]*Name
}

// NewRegistry returns an empty registry.
func NewRegistry() *Registry {
	return &Registry{
		states: map[string]*State{},
		names:  map[string]*Name{},
		later:  later{wake: make(chan struct{}, 1), due: map[Refresher]time.Time{}},
	}
}

// State returns the state of addr (host:port), creating it when it is new.
func (r *Registry) State(addr string) *State {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.states[addr]
	if s == nil {
		s = &State{addr: addr}
		r.states[addr] = s
	}
	return s
}

// Name returns the name in addr (host:port), creating it when it is new; nil when
// there is none to resolve.
func (r *Registry) Name(addr string) *Name {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.names[addr]
	if n == nil {
		if n = newName(addr); n != nil {
			r.names[addr] = n
		}
	}
	return n
}

// Addresses returns the addresses that have a state or are a name, but not those
// that a name stands for.
func (r *Registry) Addresses() map[string]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	addresses := make(map[string]bool, len(r.states))
	for addr := range r.states {
		addresses[addr] = true
	}
	for _, n := range r.names {
		found, _ := n.Addresses()
		for _, addr := range found {
			delete(addresses, addr)
		}
	}
	for addr := range r.names {
		addresses[addr] = true
	}
	return addresses
}

// Forget forgets names, and the states of addresses, but not while something is in
// flight. What is forgotten goes on working for those who still hold it; State and
// Name make new ones for the address.
func (r *Registry) Forget(addresses map[string]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for addr := range addresses {
		delete(r.names, addr)
		if s := r.states[addr]; s != nil && s.InFlight() == 0 {
			delete(r.states, addr)
		}
	}
}
