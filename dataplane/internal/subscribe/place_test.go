package subscribe

import (
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

func (p *peer) sendPlacement(t *testing.T, place uint32) {
	t.Helper()
	p.mustSend(t, &routetablev1.SubscribeResponse{Message: &routetablev1.SubscribeResponse_Placement{
		Placement: &routetablev1.Placement{Place: place},
	}})
}

// waitPlace waits until a place is stored.
func waitPlace(t *testing.T, place *atomic.Uint32, want uint32) {
	t.Helper()
	eventually(t, "the place is taken over", func() error {
		if got := place.Load(); got != want {
			return fmt.Errorf("%d, want %d", got, want)
		}
		return nil
	})
}

// waitPlaceOnDisk waits until a place is in the state directory.
func waitPlaceOnDisk(t *testing.T, dir string, want uint32) {
	t.Helper()
	eventually(t, "the place is kept", func() error {
		got, err := NewStore(dir).loadPlace()
		if err == nil && got != want {
			err = fmt.Errorf("%d, want %d", got, want)
		}
		return err
	})
}

func TestThePlaceIsKept(t *testing.T) {
	dir := t.TempDir()
	cp := startControlPlane(t, "127.0.0.1:0", nil)
	first := new(atomic.Uint32)
	dp := startDataPlane(t, dir, func(o *Options) { o.Place = first }, cp.address)
	p := cp.accept(t)
	for _, want := range []uint32{7, 0, 1<<32 - 1} {
		p.sendPlacement(t, want)
		waitPlace(t, first, want)
		waitPlaceOnDisk(t, dir, want)
	}
	dp.stop()

	second := new(atomic.Uint32)
	startDataPlane(t, dir, func(o *Options) { o.Place = second }, away(t))
	if got := second.Load(); got != 1<<32-1 {
		t.Errorf("after a start without a control plane: place %d, want that of the run before", got)
	}
}

func TestADamagedPlaceIsNotBelieved(t *testing.T) {
	for _, content := range []string{"", "x\n", "-1\n", "4294967296\n", "1\n2\n", "00000000000001\n"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, placeFileName), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if place, err := NewStore(dir).loadPlace(); err == nil || place != 0 {
			t.Errorf("%q: place %d, error %v; want an error", content, place, err)
		}
	}
}
