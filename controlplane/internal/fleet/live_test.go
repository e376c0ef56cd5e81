package fleet_test

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"reverseproxy/controlplane/internal/fleet"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// live asks for a sign of life and returns how many data planes it tells of.
func (p *player) live(t *testing.T) uint32 {
	t.Helper()
	p.heartbeat(t, "", 0)
	return p.recvLive(t)
}

// recvLive receives until a sign of life comes.
func (p *player) recvLive(t *testing.T) uint32 {
	t.Helper()
	for {
		if a := p.recv(t).GetAlive(); a != nil {
			return a.GetDataPlanes()
		}
	}
}

// waitLive waits until it is told of a number unasked. What was on its way before
// may come first.
func (p *player) waitLive(t *testing.T, want uint32) {
	t.Helper()
	for n := p.recvLive(t); n != want; n = p.recvLive(t) {
		t.Logf("told of %d first", n)
	}
}

func TestDataPlanesAreToldHowManyAreLive(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	s.publish(t, table(1))
	a := s.join(t, "a", "1", "")
	if n := a.live(t); n != 1 {
		t.Errorf("alone: told of %d", n)
	}
	b := s.join(t, "b", "1", "")
	a.waitLive(t, 2)
	if n := b.live(t); n != 2 {
		t.Errorf("the second is told of %d", n)
	}
	c := s.join(t, "c", "1", "")
	a.waitLive(t, 3)
	b.waitLive(t, 3)
	c.close()
	a.waitLive(t, 2)
	b.send(t, &routetablev1.SubscribeRequest{Message: &routetablev1.SubscribeRequest_Goodbye{Goodbye: &routetablev1.Goodbye{}}})
	a.waitLive(t, 1)
}

func TestASilentDataPlaneIsNotLive(t *testing.T) {
	c := newClock()
	s := start(t, fleet.Options{Now: c.Now}, fleet.ServerOptions{})
	s.publish(t, table(1))
	a, b := s.join(t, "a", "1", ""), s.join(t, "b", "1", "")
	b.live(t)
	c.Advance(fleet.DefaultSilenceLimit + time.Second)
	a.live(t) // has spoken
	s.fleet.Sweep()
	a.waitLive(t, 1)
	b.heartbeat(t, "", 0)
	a.waitLive(t, 2)
}

// A data plane that comes back before the end of its old stream is noticed is one,
// two that share an id are two.
func TestSessionsOfOneIDAreCountedAsTheyAreShown(t *testing.T) {
	c := newClock()
	s := start(t, fleet.Options{Now: c.Now}, fleet.ServerOptions{})
	s.publish(t, table(1))
	old := s.join(t, "a", "1", "")
	old.live(t)
	next := s.join(t, "a", "2", "")
	if n := next.live(t); n != 1 {
		t.Errorf("it counts %d times", n)
	}
	c.Advance(time.Second)
	old.heartbeat(t, "", 0)
	next.waitLive(t, 2)
	next.close()
	old.waitLive(t, 1)
}

// So that data planes spread over control planes that were started later.
func TestADataPlaneIsAskedToChooseAnewAfterItsTurn(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{Turn: 50 * time.Millisecond})
	s.publish(t, table(1))
	p := s.join(t, "a", "1", "")
	if err := p.recvTurn(""); status.Code(err) != codes.Aborted {
		t.Errorf("the stream ended with %v, want code Aborted", err)
	}
	s.waitState(t, "a", "disconnected")
}
