package fleet

import "time"

// Goal says which table each data plane is to run. It is immutable.
type Goal struct {
	// Table is the desired one: what every data plane runs in the end.
	Table *Table
	// Base is what data planes run that are not chosen yet; nil: all are.
	Base *Table
	// Chosen are the ids of those that run Table although there is a Base.
	Chosen map[string]bool

	// since is when the step of a roll-out began; zero when there was none.
	since time.Time
}

// newGoal returns the goal that every data plane runs the table.
func newGoal(t *Table) *Goal { return &Goal{Table: t} }

// of returns the table that the session's data plane is to run.
func (g *Goal) of(s *session) *Table {
	if g.Base == nil || g.Chosen[s.id] {
		return g.Table
	}
	return g.Base
}

// aim makes a goal the one that all streams follow, and wakes them. f.mu is held.
func (f *Fleet) aim(g *Goal) {
	if g.Base != nil {
		f.versions = f.versions.with(g.Base.index)
	}
	f.versions = f.versions.with(g.Table.index)
	f.goal.Store(g)
	for _, sessions := range f.sessions {
		for _, s := range sessions {
			s.poke()
		}
	}
}

// replace makes t the desired table and leaves the rest of the goal as it is.
// f.mu is held.
func (f *Fleet) replace(t *Table) {
	g := *f.goal.Load()
	g.Table = t
	f.aim(&g)
}
