package health

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"reverseproxy/dataplane/internal/backend"
	"reverseproxy/dataplane/internal/resolve"
	"reverseproxy/dataplane/internal/table"
)

// Options are what a Manager needs.
type Options struct {
	// Resolver finds the addresses of the names of backends; nil: the system's.
	Resolver *net.Resolver
	Log      *slog.Logger
}

// Manager keeps what is known about the members of the endpoints in use current.
// It implements table.Watcher. All methods may be called from several goroutines.
type Manager struct {
	log       *slog.Logger
	names     *resolve.Resolver
	transport *http.Transport
	slots     chan struct{} // one for each probe in progress
	trips     chan *backend.Member

	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	pending sync.WaitGroup // of probes, and of what takes trips

	// mu guards the following. It is held while pools are refreshed.
	mu        sync.Mutex
	endpoints map[string]*endpoint // by name
	members   map[*backend.Member]*member
	probers   map[proberKey]*prober
	unprobed  int // probers whose first probe has not begun
	checks    map[string]*checks
}

// endpoint is an endpoint in use for which there is something to do. Guarded by
// Manager.mu.
type endpoint struct {
	*table.Endpoint
	names   []*backend.Name
	members map[*backend.Member]*member
}

// member is a member of an endpoint's pool. It lasts as long as the pool has it,
// over route tables. Guarded by Manager.mu.
type member struct {
	*backend.Member
	endpoint *endpoint
	backend  *table.Backend
	began    time.Time // when the pool got it
	prober   *prober   // nil: there is no active check
	ejection ejection
}

// byName reports whether the member's address has not been looked up yet.
func (b *member) byName() bool { return b.backend.Name != nil && b.State.Addr() == b.backend.Address() }

// New returns a manager without endpoints.
func New(o Options) *Manager {
	m := &Manager{
		log:       o.Log,
		transport: transport(o.Resolver),
		slots:     make(chan struct{}, maxProbes),
		trips:     make(chan *backend.Member, 64),
		endpoints: map[string]*endpoint{},
		members:   map[*backend.Member]*member{},
		probers:   map[proberKey]*prober{},
		checks:    map[string]*checks{},
	}
	lookups := o.Resolver
	if lookups == nil {
		lookups = net.DefaultResolver
	}
	m.names = resolve.New(resolve.Options{Lookup: resolve.With(lookups), Changed: m.resolved, Log: o.Log})
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.pending.Go(m.takeTrips)
	return m
}

// Close ends all probes and lookups and waits for them.
func (m *Manager) Close() {
	m.names.Close()
	m.mu.Lock()
	m.cancel()
	for _, p := range m.probers {
		p.stop()
	}
	for _, b := range m.members {
		b.ejection.stop()
	}
	m.mu.Unlock()
	m.pending.Wait()
}

// ResolveEvery implements table.Watcher.
func (m *Manager) ResolveEvery(d time.Duration) { m.names.SetInterval(d) }

// Used implements table.Watcher.
func (m *Manager) Used(e *table.Endpoint) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx.Err() != nil {
		return
	}
	before := m.endpoints[e.Name]
	if e.ActiveCheck == nil && e.PassiveCheck == nil && !e.Pool.HasNames() {
		if before != nil {
			m.forget(before)
			e.Pool.Refresh()
		}
		return
	}
	now := &endpoint{Endpoint: e, names: namesOf(e.Pool), members: map[*backend.Member]*member{}}
	for _, n := range now.names {
		m.names.Follow(n)
	}
	if before != nil {
		now.members = before.members
		for _, n := range before.names {
			m.names.Leave(n)
		}
	}
	m.endpoints[e.Name] = now
	e.Pool.Refresh() // a name may have changed since the pool was made
	m.sync(now)
}

// Unused implements table.Watcher.
func (m *Manager) Unused(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.endpoints[name]; e != nil {
		m.forget(e)
	}
}

// forget ends everything about an endpoint.
func (m *Manager) forget(e *endpoint) {
	for _, n := range e.names {
		m.names.Leave(n)
	}
	for _, b := range e.members {
		m.drop(b)
	}
	delete(m.endpoints, e.Name)
}

func namesOf(p *table.Pool) []*backend.Name {
	seen := map[*backend.Name]bool{}
	var names []*backend.Name
	for _, b := range p.Backends {
		if b.Name != nil && !seen[b.Name] {
			seen[b.Name] = true
			names = append(names, b.Name)
		}
	}
	return names
}

// resolved takes note that a name has other addresses.
func (m *Manager) resolved(n *backend.Name) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.endpoints {
		for _, other := range e.names {
			if other == n {
				e.Pool.Refresh()
				m.sync(e)
			}
		}
	}
}

// sync follows the members that the endpoint's pool has now, and lets go of the
// others. What they know of the same member stays.
func (m *Manager) sync(e *endpoint) {
	before := e.members
	e.members = make(map[*backend.Member]*member, len(before))
	for _, b := range e.Pool.Members() {
		if e.members[b.Health] != nil {
			continue // the same URL twice
		}
		known := before[b.Health]
		delete(before, b.Health)
		if known == nil {
			known = &member{Member: b.Health, began: time.Now()}
			m.members[b.Health] = known
		}
		known.endpoint, known.backend = e, b.Backend
		e.members[b.Health] = known
		m.attend(known)
	}
	for _, gone := range before {
		m.drop(gone)
	}
	e.Pool.Refresh()
}

// attend gives a member the checks that its endpoint has.
func (m *Manager) attend(b *member) {
	p := m.proberOf(b)
	if p != b.prober {
		if p != nil {
			p.members[b] = true
		}
		m.letGo(b)
		b.prober = p
	}
	b.SetHealthy(p == nil || p.healthy)
	if c := b.endpoint.PassiveCheck; c != nil {
		b.Watch(c.Failures, m.trips)
	} else {
		b.Watch(0, nil)
		b.ejection.stop()
		b.SetEjected(false)
	}
	b.SetTrouble(b.status().Reason)
}

// drop forgets a member that its pool does not have any more.
func (m *Manager) drop(b *member) {
	m.letGo(b)
	b.Watch(0, nil)
	b.ejection.stop()
	b.SetHealthy(true)
	b.SetEjected(false)
	b.SetTrouble("")
	delete(m.members, b.Member)
}

// letGo leaves the prober of a member, which ends with its last one.
func (m *Manager) letGo(b *member) {
	p := b.prober
	if p == nil {
		return
	}
	b.prober = nil
	delete(p.members, b)
	if len(p.members) == 0 {
		m.end(p)
	}
}
