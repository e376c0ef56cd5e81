package activate

import (
	"errors"
	"io"

	"reverseproxy/dataplane/internal/table"
)

// ErrNotPrepared is returned for a version that is not prepared.
var ErrNotPrepared = errors.New("the route table is not prepared")

// prepared is a table that has been verified and compiled, and waits to be put in
// force. Nothing about requests has changed for it.
type prepared struct {
	table *table.Table
	port  io.Closer // kept for the listener that the table needs; nil: the open one will do
}

// Prepare verifies and compiles a marshalled route table and keeps the port that it
// needs, so that Commit has nothing to do that takes time or fails. The table in force
// goes on serving. What was prepared before is dropped in any case: there is never more
// than one. Errors are those of Activate.
func (a *Activator) Prepare(encoded []byte, version string, revision uint64) error {
	verified, err := a.PrepareMade(encoded, version, revision)
	if !verified {
		a.counts.add(false)
	}
	return err
}

// PrepareMade does the same with a table that was made here, of the one in force and a
// delta; see ActivateMade.
func (a *Activator) PrepareMade(encoded []byte, version string, revision uint64) (verified bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.discard()
	t, err := a.compile(encoded, version, revision)
	if err != nil {
		return false, err
	}
	p, err := a.prepare(t)
	if err != nil {
		if !errors.Is(err, ErrDraining) {
			a.counts.add(false)
		}
		return true, err
	}
	a.prepared = p
	a.o.Log.Info("prepared", "version", version, "revision", revision, "endpoints", p.table.Len())
	return true, nil
}

func (a *Activator) prepare(t *table.Table) (*prepared, error) {
	if err := a.checkLog(t); err != nil {
		return nil, err
	}
	port, needed, err := a.needs(t)
	if err != nil || !needed {
		return &prepared{table: t}, err
	}
	kept, err := a.o.Reserve(a.o.Address, port)
	if err != nil {
		return nil, cannotOpen(port, err)
	}
	return &prepared{t, kept}, nil
}

// Commit puts the prepared table in force, which must have the version. Requests that
// begin from then on are routed by it at once: what endpoints need is made after the
// switch, not before it.
func (a *Activator) Commit(version string, revision uint64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.prepared
	if p == nil || p.table.Version != version {
		return ErrNotPrepared
	}
	next, err := a.open(p.table)
	a.discard()
	if !errors.Is(err, ErrDraining) {
		a.counts.add(err == nil)
	}
	if err != nil {
		return err
	}
	before := a.o.Live.Load()
	a.o.Live.Store(p.table)
	p.table.Warm(before)
	a.follow(p.table, next, revision, Stream)
	return nil
}

// Discard drops what is prepared, if anything is.
func (a *Activator) Discard() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.discard()
}

// discard does it with a.mu held.
func (a *Activator) discard() {
	if p := a.prepared; p != nil && p.port != nil {
		_ = p.port.Close() // of a socket that nothing was sent on
	}
	a.prepared = nil
}
