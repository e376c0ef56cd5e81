package activate_test

import (
	"errors"
	"fmt"
	"net"
	"testing"

	"reverseproxy/dataplane/internal/activate"
	"reverseproxy/dataplane/internal/activate/activatetest"
)

// prepare prepares a table and returns its version.
func prepare(t *testing.T, a *activate.Activator, revision uint64, port uint16, urls ...string) (version string, err error) {
	t.Helper()
	rt, version := activatetest.Table(port, urls...)
	return version, a.Prepare(activatetest.Encode(t, rt), version, revision)
}

func mustPrepare(t *testing.T, a *activate.Activator, revision uint64, port uint16, urls ...string) (version string) {
	t.Helper()
	version, err := prepare(t, a, revision, port, urls...)
	if err != nil {
		t.Fatalf("prepare revision %d: %v", revision, err)
	}
	return version
}

func TestCommitPutsInForceWhatIsPrepared(t *testing.T) {
	a, o := newActivator(t, nil)
	port, other := activatetest.Port(t), activatetest.Port(t)
	before := mustActivate(t, a, 1, port, backend1)

	next := mustPrepare(t, a, 2, other, backend2)
	wantServed(t, port, before)
	wantClosed(t, other)
	if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", other)); err == nil {
		l.Close()
		t.Error("another program can take the port that is kept")
	}
	if err := a.Commit(before, 2); !errors.Is(err, activate.ErrNotPrepared) {
		t.Errorf("commit of another version: %v", err)
	}
	if err := a.Commit(next, 3); err != nil {
		t.Fatal(err)
	}
	wantServed(t, other, next)
	wantClosed(t, port)
	if f := a.InForce(); f.Table != o.Live.Load() || f.Table.Version != next || f.Revision != 3 || f.Source != activate.Stream {
		t.Errorf("in force: %+v", f)
	}
	if err := a.Commit(next, 4); !errors.Is(err, activate.ErrNotPrepared) {
		t.Errorf("commit once more: %v", err)
	}
}

func TestAFirstTableMayBePrepared(t *testing.T) {
	a, _ := newActivator(t, nil)
	port := activatetest.Port(t)
	version := mustPrepare(t, a, 1, port, backend1)
	if a.InForce() != nil || a.Ready() == nil {
		t.Error("something is in force")
	}
	wantClosed(t, port)
	if err := a.Commit(version, 1); err != nil {
		t.Fatal(err)
	}
	wantServed(t, port, version)
}

func TestWhatCannotBePrepared(t *testing.T) {
	a, _ := newActivator(t, nil)
	port := activatetest.Port(t)
	before := mustActivate(t, a, 1, port, backend1)
	mustPrepare(t, a, 2, port, backend2)

	taken, release := activatetest.TakenPort(t)
	version, err := prepare(t, a, 3, taken, backend2)
	if !errors.Is(err, activate.ErrListen) {
		t.Fatalf("a port that is taken: %v", err)
	}
	if err := a.Commit(version, 3); !errors.Is(err, activate.ErrNotPrepared) {
		t.Errorf("commit of what was refused: %v", err)
	}
	rt, _ := activatetest.Table(port, backend2)
	if err := a.Prepare(activatetest.Encode(t, rt), "wrong", 3); err == nil {
		t.Error("a table of another version is prepared")
	}
	wantServed(t, port, before)
	release()
	mustPrepare(t, a, 4, taken, backend2)
}

// There is never more than one, and none is in the way of what comes into force
// otherwise.
func TestWhatIsPreparedIsDropped(t *testing.T) {
	port := activatetest.Port(t)
	for _, test := range []struct {
		name string
		drop func(t *testing.T, a *activate.Activator)
	}{
		{"by a word", func(_ *testing.T, a *activate.Activator) { a.Discard() }},
		{"by another one", func(t *testing.T, a *activate.Activator) { mustPrepare(t, a, 3, port, backend2, backend1) }},
		{"by one that is refused", func(_ *testing.T, a *activate.Activator) { _ = a.Prepare([]byte{0xff}, "v", 3) }},
		{"by a table in force", func(t *testing.T, a *activate.Activator) { mustActivate(t, a, 3, port, backend2, backend1) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, _ := newActivator(t, nil)
			mustActivate(t, a, 1, port, backend1)
			other := activatetest.Port(t)
			version := mustPrepare(t, a, 2, other, backend2)
			test.drop(t, a)
			if err := a.Commit(version, 2); !errors.Is(err, activate.ErrNotPrepared) {
				t.Errorf("commit: %v", err)
			}
			wantClosed(t, other)
		})
	}
}

func TestNothingIsCommittedWhileDraining(t *testing.T) {
	a, _ := newActivator(t, nil)
	port := activatetest.Port(t)
	before := mustActivate(t, a, 1, port, backend1)
	version := mustPrepare(t, a, 2, activatetest.Port(t), backend2)
	a.Drain()
	if err := a.Commit(version, 2); !errors.Is(err, activate.ErrDraining) {
		t.Errorf("commit: %v", err)
	}
	if _, err := prepare(t, a, 3, activatetest.Port(t), backend2); !errors.Is(err, activate.ErrDraining) {
		t.Errorf("prepare: %v", err)
	}
	wantServed(t, port, before)
}
