package fleet

import (
	"time"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

// count notes whether a session stands for a live data plane: one that is connected,
// not silent, and not the past of a newer one with its id. f.mu is held.
func (f *Fleet) count(s *session, live bool) {
	if s.live == live {
		return
	}
	s.live = live
	if live {
		f.live++
	} else {
		f.live--
	}
	f.announce()
}

// announce has every stream told, soon, how many data planes are live. f.mu is held.
func (f *Fleet) announce() {
	if f.announcing {
		return
	}
	f.announcing = true
	time.AfterFunc(announceDelay, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.announcing = false
		for _, sessions := range f.sessions {
			for _, s := range sessions {
				if f.owesAlive(s) {
					s.poke()
				}
			}
		}
	})
}

// owesAlive reports whether a session is to be sent a sign of life: it has asked, or
// does not know how many data planes are live. f.mu is held.
func (f *Fleet) owesAlive(s *session) bool {
	return s.connected && (s.aliveOwed || s.toldLive != f.live)
}

// takeAlive returns the sign of life that a session is owed, nil when it is not.
func (f *Fleet) takeAlive(s *session) *routetablev1.SubscribeResponse {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.owesAlive(s) {
		return nil
	}
	s.aliveOwed, s.toldLive = false, f.live
	return &routetablev1.SubscribeResponse{
		Message: &routetablev1.SubscribeResponse_Alive{Alive: &routetablev1.Alive{DataPlanes: f.live}},
	}
}
