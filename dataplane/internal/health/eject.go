package health

import (
	"fmt"
	"time"

	"reverseproxy/dataplane/internal/backend"
	"reverseproxy/dataplane/internal/table"
)

const (
	// maxTimes is by how much an ejection is longer than the first at most.
	maxTimes = 10
	// maxLevel is after how many ejections they do not grow any more.
	maxLevel = 5
)

// ejection is what a passive check knows about a member. Guarded by Manager.mu.
type ejection struct {
	total  uint64
	reason string // of the last one, for people
	// level is how many ejections in a row count for how long the next one is.
	level  int
	length time.Duration // of the last one
	since  time.Time     // when it began
	until  time.Time     // when it ended or ends
	timer  *time.Timer   // of its end; nil: there was none yet
}

func (e *ejection) stop() {
	if e.timer != nil {
		e.timer.Stop()
	}
}

// next returns for how long the member is ejected now: twice as long as the last
// time, up to maxTimes the first. A time without an ejection that is as long as
// the last one was takes one doubling back.
func (e *ejection) next(first time.Duration, now time.Time) time.Duration {
	for good := now.Sub(e.until); e.level > 0; e.level-- {
		if good -= times(first, e.level-1); good < 0 {
			break
		}
	}
	length := times(first, e.level)
	e.level = min(e.level+1, maxLevel)
	return length
}

func times(first time.Duration, level int) time.Duration {
	return min(first<<level, maxTimes*first)
}

// takeTrips takes the members that have failed too often, until the manager is
// closed.
func (m *Manager) takeTrips() {
	for {
		select {
		case b := <-m.trips:
			m.trip(b)
		case <-m.ctx.Done():
			return
		}
	}
}

// trip ejects a member, unless too much of its pool would be out of use.
func (m *Manager) trip(h *backend.Member) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.members[h]
	if b == nil || b.endpoint.PassiveCheck == nil || b.Ejected() || m.ctx.Err() != nil {
		return
	}
	check := b.endpoint.PassiveCheck
	if !mayEject(b) {
		m.log.Debug("backend fails, but is not ejected", "endpoint", b.endpoint.Name, "backend", b.backend.URL, "address", b.State.Addr())
		return
	}
	e := &b.ejection
	now := time.Now()
	e.length = e.next(check.EjectFor, now)
	e.since, e.until = now, now.Add(e.length)
	e.total++
	e.reason = fmt.Sprintf("%d requests failed in a row; ejected for %v", check.Failures, e.length)
	e.stop()
	e.timer = time.AfterFunc(e.length, func() { m.readmit(b, e.since) })
	b.SetEjected(true)
	b.SetTrouble(b.status().Reason)
	m.log.Warn("backend ejected", "endpoint", b.endpoint.Name, "backend", b.backend.URL, "address", b.State.Addr(),
		"failures", check.Failures, "for", e.length.String())
	b.endpoint.Pool.Refresh()
}

// mayEject reports whether a member's pool can do without it: another one is left
// that can be used, and no more are ejected than the check allows, or no other is.
func mayEject(b *member) bool {
	ejected, others := 0, 0
	for _, o := range b.endpoint.members {
		switch {
		case o.Ejected():
			ejected++
		case o != b && o.Usable() && o.backend.Weight > 0:
			others++
		}
	}
	most := max(1, len(b.endpoint.members)*b.endpoint.PassiveCheck.MaxPercent/100)
	return others > 0 && ejected < most
}

// readmit ends the ejection that began at a moment.
func (m *Manager) readmit(b *member, since time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !b.Ejected() || !b.ejection.since.Equal(since) || m.members[b.Member] != b {
		return
	}
	b.SetEjected(false)
	b.SetTrouble(b.status().Reason)
	m.log.Info("backend readmitted", "endpoint", b.endpoint.Name, "backend", b.backend.URL, "address", b.State.Addr())
	b.endpoint.Pool.Refresh()
}

var _ table.Watcher = (*Manager)(nil)
