package backend_test

import (
	"sync"
	"testing"

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
