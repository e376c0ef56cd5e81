package subscribe

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"reverseproxy/dataplane/internal/activate/activatetest"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// firstOf waits until a data plane has come to one of the control planes, and leaves it
// to be accepted.
func firstOf(t *testing.T, cps ...*controlPlane) (first *controlPlane) {
	t.Helper()
	eventually(t, "a data plane comes", func() error {
		i := slices.IndexFunc(cps, func(cp *controlPlane) bool { return len(cp.streams) > 0 })
		if i < 0 {
			return fmt.Errorf("nobody is here")
		}
		first = cps[i]
		return nil
	})
	return first
}

func TestEveryAddressIsTriedOnceWithoutAPause(t *testing.T) {
	r := newRota([]string{"a", "b", "c"})
	round := func(what string) {
		t.Helper()
		tried := []string{r.address()}
		for range 2 {
			if !r.next(false) {
				t.Errorf("%s: a pause after %v", what, tried)
			}
			tried = append(tried, r.address())
		}
		slices.Sort(tried)
		if !slices.Equal(tried, []string{"a", "b", "c"}) {
			t.Errorf("%s: tried %v", what, tried)
		}
	}
	round("at the start")
	for range 5 {
		if r.next(false) {
			t.Error("no pause, and all have been tried")
		}
	}
	if !r.next(true) {
		t.Error("a pause after one that has worked")
	}
	if !r.next(false) || r.next(false) {
		t.Error("there are two others, which are tried once")
	}
	r.anew()
	round("anew")

	alone := newRota([]string{"a"})
	if alone.next(true) || alone.address() != "a" {
		t.Error("the only one is tried again without a pause")
	}
}

func TestAddressesAreShuffled(t *testing.T) {
	addresses := []string{"a", "b", "c"}
	first := map[string]int{}
	const rotas = 3000
	for range rotas {
		first[newRota(addresses).address()]++
	}
	for _, a := range addresses {
		// Eight standard deviations.
		if n := first[a]; n < 793 || n > 1207 {
			t.Errorf("%s is the first of %d in %d", a, n, rotas)
		}
	}
	if !slices.Equal(addresses, []string{"a", "b", "c"}) {
		t.Errorf("the list of the caller is now %v", addresses)
	}
}

// Heartbeats alone would find it out after an hour.
func TestAControlPlaneThatFallsSilentIsLeft(t *testing.T) {
	a, b := startControlPlane(t, "127.0.0.1:0", nil), startControlPlane(t, "127.0.0.1:0", nil)
	startDataPlane(t, t.TempDir(), func(o *Options) {
		o.Heartbeat, o.Pulse, o.Silence = time.Hour, 20*time.Millisecond, 500*time.Millisecond
	}, a.address, b.address)
	hangs, other := a, b
	if firstOf(t, a, b) == b {
		hangs, other = b, a
	}
	p := hangs.accept(t)
	for answers := 0; answers < 3; {
		select {
		case <-p.heartbeats:
			answers++
		case <-p.reports:
			answers = 3 // this machine was too slow to answer in time, and it has been left already
		}
	}
	hangs.mute.Store(true)
	other.accept(t)
	p.wantEnd(t)
}

// A control plane that has been of use may ask its data planes to spread. One that asks
// all the time is as good as none.
func TestAControlPlaneIsChosenAnew(t *testing.T) {
	anew := status.Error(codes.Aborted, "choose a control plane anew")
	a, b := startControlPlane(t, "127.0.0.1:0", nil), startControlPlane(t, "127.0.0.1:0", nil)
	log := new(syncBuffer)
	startDataPlane(t, t.TempDir(), func(o *Options) { o.Log = slog.New(slog.NewTextHandler(log, nil)) }, a.address, b.address)
	asks := firstOf(t, a, b)
	p := asks.accept(t)
	rt, version := activatetest.Table(activatetest.Port(t), backend1)
	p.sendChunks(t, chunksOf(t, rt, version, 1, 1000)...)
	p.wantApplied(t, version, 1)
	for began := time.Now(); time.Since(began) < steady; {
		<-p.heartbeats
	}
	p.end <- anew
	p.wantEnd(t)
	q := firstOf(t, a, b).accept(t)
	if asked := log.String(); !strings.Contains(asked, "asks to choose one anew") || strings.Contains(asked, "control plane lost") {
		t.Errorf("log:\n%s", asked)
	}
	// Lost is one that has been heard.
	q.mustSend(t, &routetablev1.SubscribeResponse{Message: &routetablev1.SubscribeResponse_Alive{Alive: &routetablev1.Alive{}}})
	q.end <- anew
	firstOf(t, a, b)
	if !strings.Contains(log.String(), "control plane lost") {
		t.Errorf("the second one has been of no use; log:\n%s", log)
	}
}
