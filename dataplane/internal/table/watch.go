package table

import (
	"sync"

	"reverseproxy/dataplane/internal/backend"
	"reverseproxy/dataplane/internal/limit"
)

// watch is who waits for members of a pool that are full, for as long as somebody does.
type watch struct {
	mu     sync.Mutex // taken with the gate's mutex held
	gate   *limit.Gate
	states []*backend.State // that tell the gate
}

// Watch implements limit.Source.
func (p *Pool) Watch(g *limit.Gate) { p.watch.by(g, p) }

// Unwatch implements limit.Source.
func (p *Pool) Unwatch(*limit.Gate) { p.watch.by(nil, p) }

// by has a gate, nil: none, watch the members of a pool that get requests.
func (w *watch) by(g *limit.Gate, p *Pool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.look(g, p)
}

// changed is for when others get requests than before.
func (w *watch) changed(p *Pool) {
	w.mu.Lock()
	g := w.gate
	w.look(g, p)
	w.mu.Unlock()
	if g != nil {
		g.Freed()
	}
}

func (w *watch) look(g *limit.Gate, p *Pool) {
	for _, s := range w.states {
		s.Unwatch(w.gate)
	}
	w.gate, w.states = g, nil
	if g == nil {
		return
	}
	for _, m := range p.view.Load().members {
		m.Health.State.Watch(g)
		w.states = append(w.states, m.Health.State)
	}
}
