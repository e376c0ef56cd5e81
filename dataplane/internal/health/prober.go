package health

import (
	"context"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"reverseproxy/dataplane/internal/table"
)

const (
	// maxProbes is how many probes there are at once: a thousand backends that do
	// not answer must take neither all file descriptors nor all memory.
	maxProbes = 256
	// spread is the time from one first probe to the next of many that begin at the
	// same moment, on average: they must not hold up requests. A few begin at once.
	spread = time.Millisecond
)

// proberKey is what makes two probers the same one.
type proberKey struct{ addr, host, check string }

// prober probes one address. Guarded by Manager.mu, but for what never changes.
type prober struct {
	key   proberKey
	check *table.ActiveCheck

	ctx    context.Context // ends with the last member
	cancel context.CancelFunc
	timer  *time.Timer // of the next probe
	begun  bool        // the first one

	members map[*member]bool
	checks  *checks
	healthy bool
	against int // results in a row that speak against healthy
	reason  string
	since   time.Time // of healthy
}

// checks counts the probes of one backend.
type checks struct {
	users             int // probers
	succeeded, failed uint64
}

// proberOf returns the prober for a member, which may be new; nil when it needs
// none.
func (m *Manager) proberOf(b *member) *prober {
	check := b.endpoint.ActiveCheck
	if check == nil || b.byName() {
		return nil
	}
	key := proberKey{addr: b.State.Addr(), host: check.Host, check: check.Identity}
	if check.TCP {
		key.host = ""
	} else if key.host == "" {
		key.host = b.backend.Host
	}
	if check.Port != 0 {
		host, _, _ := net.SplitHostPort(key.addr) // it has a port always
		key.addr = net.JoinHostPort(host, strconv.Itoa(int(check.Port)))
	}
	if p := m.probers[key]; p != nil {
		return p
	}
	return m.begin(key, check, b.backend.Address())
}

// begin makes a prober, which begins at once.
func (m *Manager) begin(key proberKey, check *table.ActiveCheck, label string) *prober {
	p := &prober{
		key: key, check: check, members: map[*member]bool{}, healthy: true, since: time.Now(), checks: m.checks[label],
	}
	if p.checks == nil {
		p.checks = &checks{}
		m.checks[label] = p.checks
	}
	p.checks.users++
	p.ctx, p.cancel = context.WithCancel(m.ctx)
	m.probers[key] = p
	m.unprobed++
	wait := time.Duration(rand.Float64() * float64(min(check.Interval, time.Duration(m.unprobed)*spread)))
	p.timer = time.AfterFunc(wait, func() { m.due(p) })
	return p
}

// end ends a prober.
func (m *Manager) end(p *prober) {
	p.stop()
	m.started(p)
	delete(m.probers, p.key)
	if p.checks.users--; p.checks.users == 0 {
		for label, c := range m.checks {
			if c == p.checks {
				delete(m.checks, label)
			}
		}
	}
}

func (p *prober) stop() {
	p.cancel()
	p.timer.Stop()
}

// started takes note that the first probe has begun.
func (m *Manager) started(p *prober) {
	if !p.begun {
		p.begun = true
		m.unprobed--
	}
}

// due begins a probe.
func (m *Manager) due(p *prober) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p.ctx.Err() == nil {
		m.started(p)
		m.pending.Go(func() { m.probe(p) })
	}
}

// probe is one probe, in a goroutine of its own.
func (m *Manager) probe(p *prober) {
	select {
	case m.slots <- struct{}{}:
	case <-p.ctx.Done():
		return
	}
	began := time.Now()
	err := probe(p.ctx, m.transport, p.check, p.key.addr, p.key.host)
	<-m.slots

	m.mu.Lock()
	defer m.mu.Unlock()
	if p.ctx.Err() != nil {
		return
	}
	m.observe(p, err)
	p.timer.Reset(waitFor(p.check, rand.Float64()) - time.Since(began))
}

// observe takes the result of a probe.
func (m *Manager) observe(p *prober, err error) {
	if err == nil {
		p.checks.succeeded++
	} else {
		p.checks.failed++
		p.reason = err.Error()
	}
	if p.healthy == (err == nil) {
		p.against = 0
		return
	}
	p.against++
	if p.healthy && p.against >= p.check.FailingAfter || !p.healthy && p.against >= p.check.HealthyAfter {
		m.turn(p)
	}
}

// turn changes the health of every member of a prober.
func (m *Manager) turn(p *prober) {
	p.healthy, p.against, p.since = !p.healthy, 0, time.Now()
	pools := map[*table.Pool]bool{}
	var names []string
	for b := range p.members {
		b.SetHealthy(p.healthy)
		b.SetTrouble(b.status().Reason)
		pools[b.endpoint.Pool] = true
		names = append(names, b.endpoint.Name)
	}
	slices.Sort(names)
	of := list(slices.Compact(names))
	if p.healthy {
		m.log.Info("backend healthy", "backend", p.key.addr, "endpoints", of)
	} else {
		m.log.Warn("backend unhealthy", "backend", p.key.addr, "endpoints", of, "error", p.reason)
	}
	for pool := range pools {
		pool.Refresh()
	}
}

// list names the first few of many.
func list(names []string) string {
	const few = 3
	if more := len(names) - few; more > 0 {
		return strings.Join(names[:few], ", ") + " and " + strconv.Itoa(more) + " more"
	}
	return strings.Join(names, ", ")
}
