package fleet

import (
	"maps"
	"slices"
)

// Stage makes a step of a roll-out the goal: the chosen data planes, by id, are to run
// the table, the others the base. One that connects later gets the base unless it is
// chosen. The step lasts until Choose, another Stage, or Publish, which is for every
// data plane.
//
// One that runs the table already counts as chosen: nobody's table changes only to
// change back.
//
// The table has a higher revision than the base: no data plane that runs the base
// seems to come from a control plane that knows more than this one then.
func (f *Fleet) Stage(t, base *Table, chosen map[string]bool) *Goal {
	return f.stage(t, base, chosen, false)
}

// StageAll is the last step: every data plane is to run the table, whenever it connects,
// and none is sent the base before.
func (f *Fleet) StageAll(t, base *Table) *Goal {
	return f.stage(t, base, nil, true)
}

func (f *Fleet) stage(t, base *Table, chosen map[string]bool, all bool) *Goal {
	f.mu.Lock()
	defer f.mu.Unlock()
	least := base.Revision + 1
	if cur := f.Desired(); cur != nil && cur != t {
		least = max(least, cur.Revision+1)
	}
	if t.Revision < least {
		t = t.WithRevision(least)
	}
	g := &Goal{Table: t, Base: base, Chosen: f.keeping(chosen, t), since: f.opts.Now()}
	if all {
		f.versions = f.versions.with(base.index) // some may run it
		g.Base, g.Chosen = nil, nil
	}
	f.aim(g)
	return g
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
	g.Chosen, g.since = f.keeping(chosen, g.Table), f.opts.Now()
	if all {
		g.Base, g.Chosen = nil, nil
	}
	f.aim(&g)
}

// keeping returns the chosen ids and those of the data planes that run the table. f.mu is
// held.
func (f *Fleet) keeping(chosen map[string]bool, t *Table) map[string]bool {
	all := maps.Clone(chosen)
	if all == nil {
		all = map[string]bool{}
	}
	for id, sessions := range f.sessions {
		if slices.ContainsFunc(sessions, func(s *session) bool { return s.connected && s.version == t.Version }) {
			all[id] = true
		}
	}
	return all
}

// keep makes the session one of the chosen if it runs the table of a roll-out. f.mu is
// held.
func (f *Fleet) keep(s *session) {
	if g := f.goal.Load(); g != nil && g.Base != nil && !g.Chosen[s.id] && s.version == g.Table.Version {
		next := *g
		next.Chosen = f.keeping(g.Chosen, g.Table)
		f.aim(&next)
	}
}
