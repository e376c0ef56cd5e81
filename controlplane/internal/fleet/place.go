package fleet

import routetablev1 "reverseproxy/proto/routetable/v1"

// noPlace is the place of a session that has none, or has not been told of it.
const noPlace = -1

// places are the data planes by the place that each has among the others, so that
// those that begin together do not all begin with the same backend. A data plane has
// its place for as long as it is known, and there is never a gap: when it is
// forgotten, the one in the last place moves there. Fleet.mu guards it.
type places struct {
	holders []*session
	// vacant: before this one, no place is held by a data plane that is not
	// connected.
	vacant int
}

// take gives a session the first place that no connected data plane has.
func (p *places) take(s *session) {
	for ; p.vacant < len(p.holders); p.vacant++ {
		if o := p.holders[p.vacant]; !o.connected {
			p.pass(o, s)
			return
		}
	}
	s.place = len(p.holders)
	p.holders = append(p.holders, s)
}

// pass gives a session the place of another one.
func (p *places) pass(from, to *session) {
	to.place, from.place = from.place, noPlace
	p.holders[to.place] = to
}

// vacate notes that a session is not connected any more: it keeps its place until
// somebody wants it.
func (p *places) vacate(s *session) {
	if s.place != noPlace {
		p.vacant = min(p.vacant, s.place)
	}
}

// leave takes the place of a session that is forgotten.
func (p *places) leave(s *session) {
	if s.place == noPlace {
		return
	}
	n := len(p.holders) - 1
	last := p.holders[n]
	p.holders[n] = nil
	p.holders = p.holders[:n]
	if last != s {
		last.place = s.place
		p.holders[last.place] = last
		last.poke()
	}
	p.vacant = min(p.vacant, s.place)
	s.place = noPlace
}

// seat gives a session that has just registered a place: that of its data plane's
// session before it, or else a new one. A session that is not the past after all
// gets another one when it speaks.
func (f *Fleet) seat(s *session) {
	for _, o := range f.sessions[s.id] {
		if o.place != noPlace {
			f.places.pass(o, s)
			return
		}
	}
	f.places.take(s)
}

// owesPlacement reports whether a session is to be told of its place. f.mu is held.
func (s *session) owesPlacement() bool { return s.place != noPlace && s.place != s.toldPlace }

// takePlacement returns what the session is to be told about its place.
func (f *Fleet) takePlacement(s *session) *routetablev1.SubscribeResponse {
	f.mu.Lock()
	defer f.mu.Unlock()
	s.toldPlace = s.place
	return &routetablev1.SubscribeResponse{
		Message: &routetablev1.SubscribeResponse_Placement{Placement: &routetablev1.Placement{Place: uint32(max(0, s.place))}},
	}
}
