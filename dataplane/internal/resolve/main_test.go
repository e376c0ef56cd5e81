package resolve_test

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"reverseproxy/dataplane/internal/backend"
	"reverseproxy/dataplane/internal/resolve"
)

// world is what the fake DNS knows, and what was asked of it.
type world struct {
	mu      sync.Mutex
	hosts   map[string][]netip.Addr
	err     error // instead of any answer
	asked   int
	changed []*backend.Name
}

func (w *world) lookup(_ context.Context, host string) ([]netip.Addr, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked++
	if w.err != nil {
		return nil, w.err
	}
	return slices.Clone(w.hosts[host]), nil
}

func (w *world) note(n *backend.Name) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.changed = append(w.changed, n)
}

// set changes what is known of a host.
func (w *world) set(host string, addresses ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.hosts == nil {
		w.hosts = map[string][]netip.Addr{}
	}
	w.hosts[host] = nil
	for _, a := range addresses {
		w.hosts[host] = append(w.hosts[host], netip.MustParseAddr(a))
	}
}

// fail makes every lookup fail; nil: no more.
func (w *world) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
}

// since returns how often the world was asked and how many changes were told since
// the last call.
func (w *world) since() (asked, changed int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	asked, changed = w.asked, len(w.changed)
	w.asked, w.changed = 0, nil
	return asked, changed
}

func start(t *testing.T, w *world, log slog.Handler) *resolve.Resolver {
	t.Helper()
	if log == nil {
		log = slog.DiscardHandler
	}
	r := resolve.New(resolve.Options{Lookup: w.lookup, Changed: w.note, Log: slog.New(log)})
	t.Cleanup(r.Close)
	return r
}

func addresses(t *testing.T, n *backend.Name) []string {
	t.Helper()
	list, known := n.Addresses()
	if !known {
		return []string{"unknown"}
	}
	return list
}

var errNone = errors.New("no such host")
