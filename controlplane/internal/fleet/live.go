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
	time.AfterFunc(announceDelay+time.Duration(f.live)*announceEach, f.tell)
}

// tell wakes the streams whose data planes do not know how many are live.
func (f *Fleet) tell() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.announcing = false
	f.announcement++
	var owing []*session
	for _, sessions := range f.sessions {
		for _, s := range sessions {
			if f.owesAlive(s) {
				owing = append(owing, s)
			}
		}
	}
	f.wakeSome(owing)
}

// wakeSome wakes streams, few at a time. f.mu is held.
func (f *Fleet) wakeSome(sessions []*session) {
	n := min(len(sessions), announceBatch)
	for _, s := range sessions[:n] {
		s.poke()
	}
	if n < len(sessions) {
		time.AfterFunc(announcePause, func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.wakeSome(sessions[n:])
		})
	}
}

// owesAlive reports whether a session is to be sent a sign of life: it has asked, or
// does not know how many data planes are live, once for each announcement. While many
// come and go, their number changes faster than it can be told. f.mu is held.
func (f *Fleet) owesAlive(s *session) bool {
	return s.connected && (s.aliveOwed || s.announcement != f.announcement && s.toldLive != f.live)
}

// takeAlive returns the sign of life that a session is owed, nil when it is not.
func (f *Fleet) takeAlive(s *session) *routetablev1.SubscribeResponse {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.owesAlive(s) {
		return nil
	}
	s.aliveOwed, s.toldLive, s.announcement = false, f.live, f.announcement
	return &routetablev1.SubscribeResponse{
		Message: &routetablev1.SubscribeResponse_Alive{Alive: &routetablev1.Alive{DataPlanes: f.live}},
	}
}
