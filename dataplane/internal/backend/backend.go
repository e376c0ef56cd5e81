// Package backend holds what is known about backends and must outlive route
// tables: requests in flight, whether they can be reached. State is found by
// address, never rebuilt because a table changed. The table refers to it, the
// request path updates it, metrics read it.
package backend

import "sync/atomic"

// State is one backend's state, shared by every endpoint whose pool names the
// same address. All methods may be called from several goroutines.
type State struct {
	addr     string
	inFlight atomic.Int64
	down     atomic.Bool
}

// Addr returns host:port to connect to.
func (s *State) Addr() string { return s.addr }

// Registry finds the state of a backend by its address.
type Registry struct{}

// NewRegistry returns an empty registry.
func NewRegistry() *Registry { panic("not yet") }

// State returns the state of addr (host:port), creating it when it is new.
func (r *Registry) State(addr string) *State { panic("not yet") }

// Retain forgets every state for which keep is false and nothing is in flight.
func (r *Registry) Retain(keep func(addr string) bool) { panic("not yet") }

// Begin counts a request that has been given to the backend, End one that has
// been answered or has failed.
func (s *State) Begin() { panic("not yet") }

// End is the counterpart of Begin.
func (s *State) End() { panic("not yet") }

// InFlight returns requests begun and not ended.
func (s *State) InFlight() int64 { panic("not yet") }

// SetUp records whether the last attempt to connect succeeded.
func (s *State) SetUp(up bool) { panic("not yet") }

// Up reports it; true until an attempt has failed.
func (s *State) Up() bool { panic("not yet") }
