package table

import "time"

// Watcher is told what is in use, to find out about its members. Its methods are
// called one at a time, some of them on the request path's goroutines: they do not
// wait for anything. They may refresh pools.
type Watcher interface {
	// Used tells that an endpoint is in use, in place of the one of its name before.
	Used(e *Endpoint)
	// Unused tells that no endpoint of this name is in use any more.
	Unused(name string)
	// ResolveEvery tells how often the names of backends are to be looked up.
	ResolveEvery(d time.Duration)
}

// tellWatcher tells the watcher which endpoint of a name is in use now. Whatever has
// changed meanwhile, it is told the truth last.
func (s *State) tellWatcher(name string) {
	if s.Watcher == nil {
		return
	}
	s.telling.Lock()
	defer s.telling.Unlock()
	s.mu.Lock()
	e := s.known[name]
	s.mu.Unlock()
	if e == nil {
		s.Watcher.Unused(name)
		return
	}
	s.Watcher.Used(e)
}
