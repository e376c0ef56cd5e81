package backend_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"reverseproxy/dataplane/internal/backend"
)

func TestStateIsFoundByAddress(t *testing.T) {
	r := backend.NewRegistry()
	a := r.State("a:80")
	if a.Addr() != "a:80" || !a.Up() || a.InFlight() != 0 {
		t.Errorf("a new state is %q, up %v, %d in flight", a.Addr(), a.Up(), a.InFlight())
	}
	if r.State("a:80") != a || r.State("b:80") == a {
		t.Error("an address does not have one state of its own")
	}
}

func TestUp(t *testing.T) {
	s := backend.NewRegistry().State("a:80")
	for _, up := range []bool{false, false, true, true, false} {
		s.SetUp(up)
		if s.Up() != up {
			t.Errorf("up is %v after SetUp(%v)", s.Up(), up)
		}
	}
}

func TestForget(t *testing.T) {
	r := backend.NewRegistry()
	kept, busy, gone := r.State("kept:80"), r.State("busy:80"), r.State("gone:80")
	busy.Begin()
	unused := r.Addresses()
	if diff := cmp.Diff(map[string]bool{"kept:80": true, "busy:80": true, "gone:80": true}, unused); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
	delete(unused, "kept:80")
	unused["never:80"] = true
	r.Forget(unused)
	if r.State("kept:80") != kept || r.State("busy:80") != busy {
		t.Error("a state in use was forgotten")
	}
	if r.State("gone:80") == gone {
		t.Error("an unused state was kept")
	}
	busy.End()
	r.Forget(unused)
	if r.State("busy:80") == busy {
		t.Error("a state was kept after its last request")
	}
}

func TestConcurrentUse(t *testing.T) {
	r := backend.NewRegistry()
	var g sync.WaitGroup
	for range 8 {
		g.Go(func() {
			for i := range 1000 {
				s := r.State("a:80")
				s.Begin()
				s.SetUp(i%2 == 0)
				r.Addresses()
				r.Forget(map[string]bool{"a:80": true}) // it is in use
				s.End()
			}
		})
	}
	g.Wait()
	if n := r.State("a:80").InFlight(); n != 0 {
		t.Errorf("%d in flight in the end", n)
	}
}

func TestMember(t *testing.T) {
	m := backend.NewMember(backend.NewRegistry().State("a:80"))
	if m.State.Addr() != "a:80" || !m.Usable() {
		t.Errorf("a new member of %s is usable: %v", m.State.Addr(), m.Usable())
	}
	for i, step := range []struct {
		do   func(bool)
		to   bool
		want bool
	}{
		{m.SetHealthy, false, false}, {m.SetHealthy, false, false}, {m.SetHealthy, true, true},
		{m.SetEjected, true, false}, {m.SetHealthy, false, false}, {m.SetEjected, false, false}, {m.SetHealthy, true, true},
	} {
		if step.do(step.to); m.Usable() != step.want {
			t.Errorf("after step %d it is usable: %v", i, m.Usable())
		}
	}
}

func TestShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := backend.NewMember(backend.NewRegistry().State("a:80"))
		if share, grows := m.Share(time.Minute); share != backend.Whole || grows != 0 {
			t.Errorf("from the start: %d tenths, growing in %v", share, grows)
		}
		m.SetHealthy(false)
		m.SetEjected(true)
		m.SetHealthy(true)
		time.Sleep(time.Hour)
		m.SetEjected(false) // now it has come back
		var shares []uint32
		var took time.Duration
		for {
			share, grows := m.Share(90 * time.Second)
			shares = append(shares, share)
			if grows == 0 {
				break
			}
			took += grows
			time.Sleep(grows)
		}
		if diff := cmp.Diff([]uint32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, shares); diff != "" || took != 90*time.Second {
			t.Errorf("it takes %v (-want +got):\n%s", took, diff)
		}
		m.SetEjected(false) // which it is not
		if share, _ := m.Share(time.Hour); share != 1 {
			t.Errorf("with a longer time it has %d tenths", share)
		}
		if share, grows := m.Share(0); share != backend.Whole || grows != 0 {
			t.Errorf("without a slow start it has %d tenths", share)
		}
		for _, slowStart := range []time.Duration{1, 3, 9, 17, 100} {
			m.ComeBack()
			for at := time.Duration(0); at < slowStart; at++ {
				if share, grows := m.Share(slowStart); share < 1 || share >= backend.Whole || grows <= 0 || at+grows > slowStart {
					t.Errorf("after %d of %d ns it has %d tenths, growing in %d", at, slowStart, share, grows)
				}
				time.Sleep(time.Nanosecond)
			}
			if share, grows := m.Share(slowStart); share != backend.Whole || grows != 0 {
				t.Errorf("after %d ns it has %d tenths, growing in %d", slowStart, share, grows)
			}
		}
	})
}

// refreshed counts how often it was refreshed.
type refreshed struct{ atomic.Int64 }

func (r *refreshed) Refresh() { r.Add(1) }

func TestRefreshLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := backend.NewRegistry()
		ctx, cancel := context.WithCancel(t.Context())
		var g sync.WaitGroup
		a, b := new(refreshed), new(refreshed)
		r.RefreshLater(a, time.Second) // before anybody runs
		g.Go(func() { r.Run(ctx) })
		r.RefreshLater(b, 3*time.Second)
		r.RefreshLater(b, 2*time.Second)
		for second, want := range [][2]int64{{0, 0}, {1, 0}, {1, 1}, {1, 1}} {
			synctest.Wait()
			if got := [2]int64{a.Load(), b.Load()}; got != want {
				t.Errorf("after %d s refreshed %v, want %v", second, got, want)
			}
			time.Sleep(time.Second)
		}
		r.RefreshLater(a, 0)
		synctest.Wait()
		if a.Load() != 2 {
			t.Error("one that is due is not refreshed")
		}
		r.RefreshLater(a, time.Second)
		cancel()
		g.Wait()
	})
}
