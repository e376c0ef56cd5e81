package fleet

import (
	"cmp"

	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// Stage is a step of a roll-out: some data planes are to run the table, the others
// still the base.
type Stage struct {
	// Table and Base are contents as for Publish, and not equal.
	Table, Base *routetablev1.RouteTable
	// Revision and BaseRevision are theirs when they are known from an earlier run; 0:
	// those that they have so far, or else the next ones.
	Revision, BaseRevision uint64
	// Chosen are the ids of those that run Table. The map is not changed any more.
	Chosen map[string]bool
}

// Stage makes a step of a roll-out the goal, and returns that. A data plane that
// connects later gets the base unless its id is chosen. The step lasts until Choose,
// another Stage, or Publish, which is for every data plane.
func (f *Fleet) Stage(s Stage) (*Goal, error) {
	table, err := f.encode(s.Table)
	if err != nil {
		return nil, err
	}
	base, err := f.encode(s.Base)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	base = f.numbered(base, s.BaseRevision, 0)
	// What all run in the end has the higher revision: then no data plane that runs the
	// other one seems to come from a control plane that knows more than this one.
	table = f.numbered(table, s.Revision, base.Revision)
	g := &Goal{Table: table, Base: base, Chosen: s.Chosen, since: f.opts.Now(), superseded: make(chan struct{})}
	f.aim(g)
	return g, nil
}

// Choose goes on with the step of a roll-out, if there is one: these data planes are to
// run the table, or, with all, every one is, whenever it connects.
func (f *Fleet) Choose(chosen map[string]bool, all bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	g := *f.goal.Load()
	if g.Base == nil {
		return
	}
	g.Chosen, g.since, g.superseded = chosen, f.opts.Now(), make(chan struct{})
	if all {
		g.Base, g.Chosen = nil, nil
	}
	f.aim(&g)
}

// encode returns the content as a table, that of the goal where it has it. Encoding a
// large one takes a third of a second: it is not to be done under the lock.
func (f *Fleet) encode(rt *routetablev1.RouteTable) (*Table, error) {
	version := routetable.Version(rt)
	if t := f.goal.Load().having(version); t != nil {
		return t, nil
	}
	return newTable(rt, version, f.opts.Now())
}

// numbered returns the table under the revision given, or 0, under the one that it has
// so far if that is above another one, or else under the next. f.mu is held.
func (f *Fleet) numbered(t *Table, revision, above uint64) *Table {
	so := f.goal.Load().having(t.Version)
	if so != nil && so.Revision > above {
		revision = cmp.Or(revision, so.Revision)
	}
	revision = cmp.Or(revision, max(f.Desired().nextRevision(), above+1))
	if so != nil && so.Revision == revision {
		return so
	}
	return t.withRevision(revision)
}
