package subscribe

import (
	"errors"
	"sync/atomic"
	"testing"

	"reverseproxy/dataplane/internal/activate"
	"reverseproxy/dataplane/internal/activate/activatetest"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// sendHold sends a table that is to be prepared and returns its version.
func (p *peer) sendHold(t *testing.T, rt *routetablev1.RouteTable, version string, revision uint64) string {
	t.Helper()
	chunks := chunksOf(t, rt, version, revision, 50)
	for _, c := range chunks {
		c.Hold = true
	}
	p.sendChunks(t, chunks...)
	return version
}

func (p *peer) sendCommit(t *testing.T, version string, revision uint64) {
	t.Helper()
	p.mustSend(t, &routetablev1.SubscribeResponse{Message: &routetablev1.SubscribeResponse_Commit{
		Commit: &routetablev1.Commit{Version: version, Revision: revision},
	}})
}

func (p *peer) sendDiscard(t *testing.T, version string) {
	t.Helper()
	p.mustSend(t, &routetablev1.SubscribeResponse{Message: &routetablev1.SubscribeResponse_Discard{
		Discard: &routetablev1.Discard{Version: version},
	}})
}

func (p *peer) wantPrepared(t *testing.T, version string) {
	t.Helper()
	if m := p.next(t); m.GetPrepared() == nil || m.GetPrepared().GetVersion() != version {
		t.Fatalf("report %v, want prepared %s", m, version)
	}
}

// wantUncommitted commits a version that is not prepared, which is asked for.
func (p *peer) wantUncommitted(t *testing.T, version string) {
	t.Helper()
	p.sendCommit(t, version, 9)
	p.wantResend(t, version)
	// Nothing has come into force: the next table is the next thing that is reported.
	rt, other := activatetest.Table(activatetest.Port(t), backend1, backend1, backend2)
	p.sendChunks(t, chunksOf(t, rt, other, 10, 1000)...)
	p.wantApplied(t, other, 10)
}

// prepared returns a data plane that serves one table and has another one ready.
func prepared(t *testing.T) (dp *dataPlane, dir string, cp *controlPlane, p *peer, before, ready string) {
	t.Helper()
	dir = t.TempDir()
	cp = startControlPlane(t, "127.0.0.1:0", nil)
	dp = startDataPlane(t, dir, nil, cp.address)
	p = cp.accept(t)
	port := activatetest.Port(t)
	rt, before := activatetest.Table(port, backend1)
	p.sendChunks(t, chunksOf(t, rt, before, 1, 1000)...)
	p.wantApplied(t, before, 1)
	rt, ready = activatetest.Table(port, backend2)
	p.sendHold(t, rt, ready, 2)
	p.wantPrepared(t, ready)
	dp.serves(t, before, 1, activate.Stream)
	return dp, dir, cp, p, before, ready
}

func TestPrepareAndCommit(t *testing.T) {
	dp, dir, _, p, before, ready := prepared(t)
	if o, err := NewStore(dir).load(); err != nil || o.version != before {
		t.Errorf("stored: %v, %v; want what is in force", o, err)
	}
	p.sendCommit(t, ready, 3)
	p.wantApplied(t, ready, 3)
	dp.serves(t, ready, 3, activate.Stream)
	if o, err := NewStore(dir).load(); err != nil || o.version != ready || o.revision != 3 {
		t.Errorf("stored: %v, %v; want what was committed", o, err)
	}
}

func TestDiscard(t *testing.T) {
	dp, _, _, p, before, ready := prepared(t)
	p.sendDiscard(t, ready)
	p.wantUncommitted(t, ready)
	if before == dp.activator.InForce().Table.Version {
		t.Error("no table has come into force afterwards")
	}
}

func TestATableTakesThePlaceOfWhatIsPrepared(t *testing.T) {
	_, _, _, p, _, ready := prepared(t)
	rt, other := activatetest.Table(activatetest.Port(t), backend1, backend2)
	p.sendChunks(t, chunksOf(t, rt, other, 5, 1000)...)
	p.wantApplied(t, other, 5)
	p.wantUncommitted(t, ready)
}

// It does so also when neither has begun, in whichever order they would be worked off.
func TestATableTakesThePlaceOfWhatIsToBePrepared(t *testing.T) {
	var place atomic.Uint32
	begun, goOn := make(chan struct{}, 3), make(chan struct{})
	cp := startControlPlane(t, "127.0.0.1:0", nil)
	startDataPlane(t, t.TempDir(), func(o *Options) {
		o.Place = &place
		o.Quietly = func(_ uint64, work func()) {
			begun <- struct{}{}
			<-goOn
			work()
		}
	}, cp.address)
	p := cp.accept(t)
	port := activatetest.Port(t)
	first, v1 := activatetest.Table(port, backend1)
	p.sendChunks(t, chunksOf(t, first, v1, 1, 1000)...)
	<-begun
	ready, v2 := activatetest.Table(port, backend2)
	p.sendHold(t, ready, v2, 2)
	other, v3 := activatetest.Table(port, backend1, backend2)
	p.sendChunks(t, chunksOf(t, other, v3, 3, 1000)...)
	p.mustSend(t, &routetablev1.SubscribeResponse{Message: &routetablev1.SubscribeResponse_Placement{
		Placement: &routetablev1.Placement{Place: 1},
	}})
	eventually(t, "all of it has come", func() error {
		if place.Load() == 0 {
			return errors.New("it has not yet")
		}
		return nil
	})
	close(goOn)
	p.wantApplied(t, v1, 1)
	p.wantApplied(t, v3, 3)
	p.wantUncommitted(t, v2)
}

func TestWhatIsPreparedIsForgottenWithTheStream(t *testing.T) {
	dp, _, cp, p, before, ready := prepared(t)
	p.end <- errors.New("lost")
	p = cp.accept(t)
	if got := p.hello.GetState().GetVersion(); got != before {
		t.Errorf("it says that it serves %s, want %s", got, before)
	}
	dp.serves(t, before, 1, activate.Stream)
	p.wantUncommitted(t, ready)
}

func TestWhatCannotBePreparedIsRejectedAndNothingChanges(t *testing.T) {
	dp, _, _, p, before, ready := prepared(t)
	taken, _ := activatetest.TakenPort(t)
	rt, version := activatetest.Table(taken, backend2)
	p.sendHold(t, rt, version, 4)
	if problem := p.wantRejected(t, version, 4)[0]; problem.GetPath() != "port" {
		t.Errorf("problem %v, want one with the port", problem)
	}
	rt, _ = activatetest.Table(activatetest.Port(t), backend2)
	p.sendHold(t, rt, "wrong", 5)
	p.wantRejected(t, "wrong", 5)
	dp.serves(t, before, 1, activate.Stream)
	p.wantUncommitted(t, ready)
}

// A confirmation that comes right before a table to prepare is not lost.
func TestATableToPrepareDisplacesNothing(t *testing.T) {
	dp, _, _, p, before, _ := prepared(t)
	rt, version := activatetest.Table(activatetest.Port(t), backend2, backend1)
	for revision := uint64(10); revision < 30; revision++ {
		p.sendCurrent(t, before, revision)
		p.sendHold(t, rt, version, revision)
		p.wantPrepared(t, version)
		eventually(t, "the confirmation counts", func() error {
			if got := dp.activator.InForce().Revision; got != revision {
				return errors.New("it does not yet")
			}
			return nil
		})
	}
}
