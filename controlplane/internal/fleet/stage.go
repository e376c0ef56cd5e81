package fleet

// Stage makes a step of a roll-out the goal: the chosen data planes, by id, are to run
// the table, the others the base. One that connects later gets the base unless it is
// chosen. The step lasts until Choose, another Stage, or Publish, which is for every
// data plane. The map is not changed any more.
//
// The table has a higher revision than the base: no data plane that runs the base
// seems to come from a control plane that knows more than this one then.
func (f *Fleet) Stage(t, base *Table, chosen map[string]bool) *Goal {
	f.mu.Lock()
	defer f.mu.Unlock()
	least := base.Revision + 1
	if cur := f.Desired(); cur != nil && cur != t {
		least = max(least, cur.Revision+1)
	}
	if t.Revision < least {
		t = t.withRevision(least)
	}
	g := &Goal{Table: t, Base: base, Chosen: chosen, since: f.opts.Now(), superseded: make(chan struct{})}
	f.aim(g)
	return g
}

// Choose goes on with the step of a roll-out, if there is one: these data planes are to
// run the table, or, with all, every one is, whenever it connects. The map is not
// changed any more.
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
