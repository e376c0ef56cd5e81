package rollout

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"reverseproxy/controlplane/internal/config"
	"reverseproxy/controlplane/internal/traffic"
)

const (
	newVersion = "new"
	oldVersion = "old"
)

// sim is a fleet that does what a roll-out says, and a clock.
type sim struct {
	*Rollout
	now    time.Time
	planes map[string]*plane
	// asked counts how often reports were wanted.
	asked int
	t     testing.TB
}

// plane is a simulated data plane.
type plane struct {
	DataPlane
	gone    bool // not known any more
	away    bool
	late    bool
	rejects bool
	// slow: it does not apply what it is told.
	slow bool
	// told is what it is to run; rate is its requests in a tick, and of them fail errors
	// with the new version, and take this long.
	rate, errors, oldErrors int
	took                    time.Duration
}

func settings(steps ...string) config.Rollout {
	s, err := config.ParseSteps(steps)
	if err != nil {
		panic(err)
	}
	return config.Rollout{
		Steps: s, Bake: 10 * time.Second, MinRequests: 100, OnNoTraffic: config.Continue,
		AbortOn: config.AbortOn{Rejected: 1, Disconnected: 1, ErrorRate: 2, LatencyP99: 2},
	}
}

func plan(s config.Rollout) Plan {
	return Plan{Revision: 8, BaseRevision: 7, Version: newVersion, BaseVersion: oldVersion, Text: "digest", Settings: s}
}

// newSim returns a fleet of n data planes, dp0 and so on, and a roll-out of it.
func newSim(t testing.TB, n int, s config.Rollout) *sim {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	m := &sim{Rollout: New(plan(s), Options{Grace: 5 * time.Second}, start), now: start, planes: map[string]*plane{}, t: t}
	for i := range n {
		m.join(fmt.Sprintf("dp%d", i), nil)
	}
	return m
}

// join adds a data plane that runs the old version.
func (m *sim) join(id string, labels map[string]string) *plane {
	p := &plane{DataPlane: DataPlane{ID: id, Labels: labels, Version: oldVersion}, rate: 50, took: 3 * time.Millisecond}
	p.Counters = traffic.Counters{Process: 1, Version: oldVersion}
	m.planes[id] = p
	return p
}

// view is what the fleet is seen as.
func (m *sim) view() []DataPlane {
	var list []DataPlane
	for _, id := range slices.Sorted(maps.Keys(m.planes)) {
		p := m.planes[id]
		if p.gone {
			continue
		}
		d := p.DataPlane
		want := oldVersion
		if m.runsNew(id) {
			want = newVersion
		}
		switch {
		case p.away:
			d.State = disconnected
		case p.late:
			d.State = stale
		case d.Version == newVersion:
			d.State = applied // as the fleet says it about the desired version
		case p.rejects && want == newVersion:
			d.State, d.Error = rejected, "port 80: taken"
		default:
			d.State = pending
		}
		list = append(list, d)
	}
	return list
}

// runsNew reports whether a data plane is to run the new version.
func (m *sim) runsNew(id string) bool {
	return m.Everybody() || m.Phase != Aborted && (m.Chosen[id] || m.planes[id].Version == newVersion)
}

// tick lets a second pass, in which the data planes do what they are told.
func (m *sim) tick() {
	m.now = m.now.Add(time.Second)
	for id, p := range m.planes {
		if p.gone || p.away {
			continue
		}
		if to := m.runsNew(id); to && !p.rejects && !p.slow && !p.late {
			p.Version = newVersion
		} else if !to {
			p.Version = oldVersion
		}
		p.serve(m.now)
	}
	if m.Advance(m.now, m.view()).Ask {
		m.asked++
	}
}

// serve counts the requests of a tick.
func (p *plane) serve(now time.Time) {
	c := &p.Counters
	c.At, c.Version = now, p.Version
	c.Requests += uint64(p.rate)
	errors, bucket := p.oldErrors, 3
	if p.Version == newVersion {
		errors = p.errors
		for bucket = 0; p.took > durationBound(bucket); {
			bucket++
		}
	}
	c.ServerErrors += uint64(errors)
	c.Durations[bucket] += uint64(p.rate)
}

// run ticks until the condition holds.
func (m *sim) run(what string, condition func() bool) {
	m.t.Helper()
	for range 1000 {
		if condition() {
			return
		}
		m.tick()
	}
	m.t.Fatalf("not in 1000 s: %s; it is %s in step %d: %s", what, m.Phase, m.Step, m.events())
}

func (m *sim) until(p Phase) {
	m.t.Helper()
	m.run(string(p), func() bool { return m.Phase == p })
}

func (m *sim) events() string {
	var list []string
	for _, e := range m.Events {
		list = append(list, e.Text)
	}
	return strings.Join(list, "\n")
}

// onNewVersion are those that run the new version.
func (m *sim) onNewVersion() []string {
	var list []string
	for _, id := range slices.Sorted(maps.Keys(m.planes)) {
		if m.planes[id].Version == newVersion {
			list = append(list, id)
		}
	}
	return list
}

// restart is what a control plane does that was started again.
func (m *sim) restart() {
	m.t.Helper()
	data, err := m.Keep()
	if err != nil {
		m.t.Fatal(err)
	}
	r, err := Restore(data, 5*time.Second, m.now)
	if err != nil {
		m.t.Fatal(err)
	}
	m.Rollout = r
}

// canary is the only data plane of the first step.
func (m *sim) canary() *plane {
	m.t.Helper()
	m.run("a canary runs it", func() bool { return len(m.onNewVersion()) > 0 })
	if list := m.onNewVersion(); len(list) != 1 {
		m.t.Fatalf("%v run it, want one", list)
	}
	return m.planes[m.onNewVersion()[0]]
}
