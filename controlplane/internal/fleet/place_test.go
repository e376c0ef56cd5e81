package fleet_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"reverseproxy/controlplane/internal/fleet"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// recvPlace receives until it is told its place.
func (p *player) recvPlace(t *testing.T) uint32 {
	t.Helper()
	for {
		m, err := p.stream.Recv()
		if err != nil {
			t.Fatalf("receive: %v", err)
		}
		if m.GetPlacement() != nil {
			return m.GetPlacement().GetPlace()
		}
	}
}

// wantPlace checks the place that it is told next.
func (p *player) wantPlace(t *testing.T, what string, want uint32) {
	t.Helper()
	if got := p.recvPlace(t); got != want {
		t.Errorf("%s: place %d, want %d", what, got, want)
	}
}

func (p *player) goodbye(t *testing.T) {
	t.Helper()
	p.send(t, &routetablev1.SubscribeRequest{Message: &routetablev1.SubscribeRequest_Goodbye{Goodbye: &routetablev1.Goodbye{}}})
}

func TestThePlaceComesBeforeTheFirstTable(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	s.publish(t, table(1))
	for want := range uint32(3) {
		p := s.join(t, fmt.Sprint("dp", want), "1", "")
		m, err := p.stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if m.GetPlacement() == nil || m.GetPlacement().GetPlace() != want {
			t.Fatalf("first message %v, want place %d", m, want)
		}
		p.recvTable(t)
	}
}

func TestAPlaceIsKeptOverAReconnect(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	s.publish(t, table(1))
	a := s.join(t, "a", "1", "")
	a.wantPlace(t, "the first", 0)
	b := s.join(t, "b", "1", "")
	b.wantPlace(t, "the second", 1)
	a.close()
	s.waitState(t, "a", "disconnected")
	b.close()
	s.waitState(t, "b", "disconnected")
	s.join(t, "b", "2", "").wantPlace(t, "the second, again", 1)
	s.join(t, "a", "2", "").wantPlace(t, "the first, again", 0)
	s.join(t, "c", "1", "").wantPlace(t, "the third", 2)
}

// A fleet of one begins with the first backend, whatever its data plane is called.
func TestANewcomerTakesThePlaceOfOneThatIsGone(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	s.publish(t, table(1))
	a := s.join(t, "a", "1", "")
	a.wantPlace(t, "alone", 0)
	a.close()
	s.waitState(t, "a", "disconnected")
	s.join(t, "b", "1", "").wantPlace(t, "alone again", 0)
	s.join(t, "a", "2", "").wantPlace(t, "back, but its place is taken", 1)
}

func TestTheLastPlaceFillsAGap(t *testing.T) {
	c := newClock()
	s := start(t, fleet.Options{Now: c.Now}, fleet.ServerOptions{})
	s.publish(t, table(1))
	var players []*player
	for want := range uint32(4) {
		p := s.join(t, fmt.Sprint("dp", want), "1", "")
		p.wantPlace(t, "joined", want)
		players = append(players, p)
	}
	players[1].goodbye(t)
	players[3].wantPlace(t, "after a goodbye", 1)
	players[0].close()
	s.waitState(t, "dp0", "disconnected")
	c.Advance(fleet.DefaultForgetAfter)
	s.fleet.Sweep()
	players[2].wantPlace(t, "after one is forgotten", 0)
}

// Two data planes with one id have a place each, but one that comes back before the
// end of its old stream is noticed goes on with its own.
func TestSessionsOfOneIDShareAPlaceUntilBothSpeak(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	s.publish(t, table(1))
	old := s.join(t, "a", "1", "")
	old.wantPlace(t, "the first", 0)
	s.join(t, "b", "1", "").wantPlace(t, "another", 1)
	next := s.join(t, "a", "2", "")
	next.wantPlace(t, "come back", 0)
	old.heartbeat(t, "", 0)
	old.wantPlace(t, "not the past", 2)
}

// Whatever comes and goes: places have no gap, and no two data planes have the same.
func TestPlacesHaveNoGaps(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	c := newClock()
	s := start(t, fleet.Options{Now: c.Now}, fleet.ServerOptions{})
	version := s.publish(t, table(1)).Version
	players := map[string]*player{}
	for range 300 {
		id := fmt.Sprint("dp", random.IntN(8))
		switch p := players[id]; {
		case p == nil:
			players[id] = s.join(t, id, fmt.Sprint(random.Int()), version)
			s.waitState(t, id, "applied")
		case random.IntN(2) == 0:
			p.close()
			s.waitState(t, id, "disconnected")
			delete(players, id)
		default:
			p.goodbye(t)
			eventually(t, id+" has gone", func() bool { return s.row(t, id) == nil })
			delete(players, id)
		}
		if random.IntN(10) == 0 {
			c.Advance(fleet.DefaultForgetAfter)
			for _, p := range players {
				p.alive(t, version)
			}
			s.fleet.Sweep()
		}
		if err := s.fleet.CheckPlaces(); err != nil {
			t.Fatal(err)
		}
	}
}
