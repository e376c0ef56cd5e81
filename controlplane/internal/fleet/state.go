package fleet

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	fleetv1 "reverseproxy/proto/fleet/v1"
)

// Short names of the states.
const (
	stateApplied      = fleetv1.DataPlaneState_DATA_PLANE_STATE_APPLIED
	statePending      = fleetv1.DataPlaneState_DATA_PLANE_STATE_PENDING
	stateRejected     = fleetv1.DataPlaneState_DATA_PLANE_STATE_REJECTED
	stateStale        = fleetv1.DataPlaneState_DATA_PLANE_STATE_STALE
	stateDisconnected = fleetv1.DataPlaneState_DATA_PLANE_STATE_DISCONNECTED
)

// state says where the session stands with respect to the desired version. During a
// roll-out those that are not chosen yet are pending. f.mu is held.
//
//	connected ── silent too long ────────────────────────> stale
//	   │  runs the desired version, none is on its way ──> applied
//	   │  has refused it ────────────────────────────────> rejected
//	   │  has had it for longer than the apply deadline ─> stale
//	   └─ otherwise ─────────────────────────────────────> pending
func (f *Fleet) state(s *session, goal *Goal, now time.Time) fleetv1.DataPlaneState {
	switch {
	case !s.connected:
		return stateDisconnected
	case f.silent(s, now):
		return stateStale
	case goal == nil:
		return statePending
	case s.version == goal.Table.Version && s.flight == nil:
		// With one in flight, a change was taken back after it had been sent: the
		// data plane is about to leave the desired version once more.
		return stateApplied
	case s.parked == goal.of(s).Version:
		return stateRejected
	case f.late(s, now):
		return stateStale
	default:
		return statePending
	}
}

// settled reports whether the session's data plane is heard of and runs what it is to
// run by the goal, and nothing else is on its way to it. f.mu is held.
func (f *Fleet) settled(s *session, goal *Goal, now time.Time) bool {
	return s.connected && !f.silent(s, now) && goal != nil && s.version == goal.of(s).Version && s.flight == nil
}

func (f *Fleet) silent(s *session, now time.Time) bool {
	return now.Sub(s.lastContact) > f.opts.SilenceLimit
}

func (f *Fleet) late(s *session, now time.Time) bool {
	return s.flight != nil && now.Sub(s.flightSince) > f.opts.ApplyDeadline
}

// trouble says, for people, what is wrong with the session, or "". f.mu is held.
func (f *Fleet) trouble(s *session, goal *Goal, now time.Time) string {
	switch f.state(s, goal, now) {
	case stateRejected:
		return s.reasons
	case stateStale:
		if f.silent(s, now) {
			return fmt.Sprintf("connected, but silent for %s", now.Sub(s.lastContact).Round(time.Second))
		}
		return fmt.Sprintf("no answer for %s about the version it was sent", now.Sub(s.flightSince).Round(time.Second))
	default:
		return ""
	}
}

// DataPlanes describes every known data plane, sorted by id and then by the
// time it connected.
func (f *Fleet) DataPlanes() []*fleetv1.DataPlane {
	return f.Observe().DataPlanes
}

// View is the fleet at one moment.
type View struct {
	// Goal is what is to run where, nil before the first Publish.
	Goal *Goal
	// DataPlanes are all that are known, each with where it stands with respect to
	// that very goal.
	DataPlanes []*fleetv1.DataPlane
	// Draining are the drained backends, sorted by URL.
	Draining []*fleetv1.DrainedBackend
	// Unhealthy is how many backends, by URL, some data plane cannot use.
	Unhealthy int
}

// Observe returns the fleet as it is.
func (f *Fleet) Observe() View {
	view, sessions := f.observation()
	if view.Goal != nil {
		view.Unhealthy = unhealthy(sessions, view.Goal.Table)
	}
	return view
}

// observation returns what Observe does with the lock held, and the sessions whose
// reports count.
func (f *Fleet) observation() (View, []*session) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now, goal := f.opts.Now(), f.goal.Load()
	list := make([]*fleetv1.DataPlane, 0, len(f.sessions))
	for _, id := range slices.Sorted(maps.Keys(f.sessions)) {
		live := f.visible(id)
		for _, s := range live {
			d := f.describe(s, goal, now)
			if len(live) > 1 {
				d.Error = cmp.Or(d.Error, fmt.Sprintf("%d data planes with this id are connected: give each its own", len(live)))
			}
			list = append(list, d)
		}
	}
	return View{Goal: goal, DataPlanes: list, Draining: f.draining(goal, now)}, f.reporting()
}

// visible returns the sessions of an id that stand for data planes of their
// own. One that has said nothing since a newer one came is the newer one's
// past: its stream has broken and the end has not been noticed yet. f.mu is
// held.
func (f *Fleet) visible(id string) []*session {
	all := f.sessions[id]
	newest := all[len(all)-1]
	var live []*session
	for _, s := range all {
		if s == newest || s.lastContact.After(newest.since) {
			live = append(live, s)
		}
	}
	return live
}

// describe returns the session for display. f.mu is held.
func (f *Fleet) describe(s *session, goal *Goal, now time.Time) *fleetv1.DataPlane {
	return &fleetv1.DataPlane{
		Id:                 s.id,
		SessionId:          s.sessionID,
		Address:            s.address,
		Labels:             s.labels,
		State:              f.state(s, goal, now),
		Version:            s.version,
		Revision:           s.revision,
		Source:             sourceName(s.source),
		LastContactSeconds: max(0, now.Sub(s.lastContact)).Seconds(),
		RequestsTotal:      s.requests,
		FailuresTotal:      s.failures,
		Error:              f.trouble(s, goal, now),
		Build:              s.build,
	}
}

// counts returns how many data planes are in each state.
func (f *Fleet) counts() map[fleetv1.DataPlaneState]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	now, goal := f.opts.Now(), f.goal.Load()
	n := map[fleetv1.DataPlaneState]int{}
	for id := range f.sessions {
		for _, s := range f.visible(id) {
			n[f.state(s, goal, now)]++
		}
	}
	return n
}
