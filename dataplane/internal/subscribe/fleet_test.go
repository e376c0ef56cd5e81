package subscribe

import (
	"fmt"
	"testing"
	"time"

	"reverseproxy/dataplane/internal/limit"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

func TestTheSizeOfTheFleet(t *testing.T) {
	cp := startControlPlane(t, "127.0.0.1:0", nil)
	fleet := new(limit.Fleet)
	startDataPlane(t, t.TempDir(), func(o *Options) { o.Fleet = fleet }, cp.address)
	p := cp.accept(t)
	for _, n := range []uint32{3, 2, 7} {
		eventually(t, "the number is taken over", func() error {
			_ = p.send(&routetablev1.SubscribeResponse{Message: &routetablev1.SubscribeResponse_Alive{Alive: &routetablev1.Alive{DataPlanes: n}}})
			if size := fleet.Size(); size != int64(n) {
				return fmt.Errorf("%d, want %d", size, n)
			}
			return nil
		})
	}
	p.end <- nil
	<-cp.accept(t).heartbeats // it says nothing of the number
	if fleet.Size() != 7 {
		t.Errorf("without a word from the control plane there are %d", fleet.Size())
	}
}

// A control plane that has just started counts those that have come back so far.
func TestFewerDataPlanesAreNotBelievedTooSoon(t *testing.T) {
	s := New(Options{MaxDelay: time.Minute})
	for _, tt := range []struct {
		lasted time.Duration
		tells  uint32
		want   int64
	}{
		{0, 4, 4}, {0, 1, 4}, {time.Minute, 2, 4}, {time.Second, 5, 5}, {2 * time.Minute, 0, 5}, {2 * time.Minute, 2, 2},
	} {
		x := &session{s: s, began: time.Now().Add(-tt.lasted)}
		if x.alive(tt.tells); s.o.Fleet.Size() != tt.want {
			t.Errorf("told of %d after %s: takes %d, want %d", tt.tells, tt.lasted, s.o.Fleet.Size(), tt.want)
		}
	}
}
