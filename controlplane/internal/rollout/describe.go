package rollout

import (
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	"reverseproxy/controlplane/internal/traffic"
	fleetv1 "reverseproxy/proto/fleet/v1"
)

var wirePhases = map[Phase]fleetv1.RolloutPhase{
	Applying:   fleetv1.RolloutPhase_ROLLOUT_PHASE_APPLYING,
	Baking:     fleetv1.RolloutPhase_ROLLOUT_PHASE_BAKING,
	Paused:     fleetv1.RolloutPhase_ROLLOUT_PHASE_PAUSED,
	Done:       fleetv1.RolloutPhase_ROLLOUT_PHASE_DONE,
	Aborted:    fleetv1.RolloutPhase_ROLLOUT_PHASE_ABORTED,
	Superseded: fleetv1.RolloutPhase_ROLLOUT_PHASE_SUPERSEDED,
}

// PhaseOf returns the phase of a described roll-out.
func PhaseOf(d *fleetv1.Rollout) Phase {
	for phase, wire := range wirePhases {
		if wire == d.GetPhase() {
			return phase
		}
	}
	return ""
}

// Describe returns the roll-out for display.
func (r *Rollout) Describe() *fleetv1.Rollout {
	d := &fleetv1.Rollout{
		Revision: r.Revision, Version: r.Version, BaseRevision: r.BaseRevision, BaseVersion: r.BaseVersion,
		Phase: wirePhases[r.Phase], Reason: r.why(), Step: uint32(r.Step),
		Chosen: slices.Sorted(maps.Keys(r.Chosen)), Applied: uint32(r.applied),
		StartedAt: timestamppb.New(r.StartedAt), DataPlanes: uint32(r.known),
		OnNew: window(r.onNew.sum, len(r.onNew.last)), OnOld: window(r.onOld.sum, r.unchosen()),
	}
	for _, s := range r.Settings.Steps {
		d.Steps = append(d.Steps, s.String())
	}
	if !r.bakeUntil.IsZero() {
		d.BakeUntil = timestamppb.New(r.bakeUntil)
	}
	for _, e := range r.Events {
		d.Events = append(d.Events, &fleetv1.RolloutEvent{At: timestamppb.New(e.At), Text: e.Text})
	}
	return d
}

// why says what the roll-out waits for, or why it was paused or has ended.
func (r *Rollout) why() string {
	switch {
	case r.Phase != Applying:
		return r.Reason
	case r.known == 0:
		return "no data plane is connected"
	case r.Target == 0:
		return "data planes are still to come back"
	}
	return fmt.Sprintf("%d of %s have applied it", r.applied, plural(len(r.Chosen), "data plane"))
}

// unchosen returns how many data planes without the change are watched. What those have
// done that got it later counts as done without it, but they are not there any more.
func (r *Rollout) unchosen() int {
	n := 0
	for id := range r.onOld.last {
		if !r.Chosen[id] {
			n++
		}
	}
	return n
}

func window(c traffic.Counters, planes int) *fleetv1.Window {
	return &fleetv1.Window{
		DataPlanes: uint32(planes), Requests: c.Requests, ServerErrors: c.ServerErrors, GatewayErrors: c.GatewayErrors,
		P99Seconds: c.P99().Seconds(),
	}
}
