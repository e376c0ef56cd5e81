package status

import (
	"time"

	"reverseproxy/controlplane/internal/rollout"
	fleetv1 "reverseproxy/proto/fleet/v1"
)

// Rollout is a configuration on its way through the fleet in steps.
type Rollout struct {
	Revision     uint64 `json:"revision"`
	Version      string `json:"version"`
	BaseRevision uint64 `json:"baseRevision"`
	BaseVersion  string `json:"baseVersion"`
	// Phase is "applying", "baking", "paused", "done", "aborted" or "superseded".
	Phase  string `json:"phase"`
	Reason string `json:"reason"`
	// Steps are as in the file; Step is the one that is being done, from 1.
	Steps []string `json:"steps"`
	Step  int      `json:"step"`
	// Chosen are the ids of those that are to run it, never null; Applied how many of
	// them do, DataPlanes how many are connected.
	Chosen     []string  `json:"chosen"`
	Applied    int       `json:"applied"`
	DataPlanes int       `json:"dataplanes"`
	StartedAt  time.Time `json:"startedAt"`
	// BakeUntil is not there while data planes are still to apply.
	BakeUntil *time.Time `json:"bakeUntil,omitempty"`
	OnNew     Window     `json:"onNew"`
	OnOld     Window     `json:"onOld"`
	Events    []Event    `json:"events"` // never null, the newest last
}

// Window is what some data planes have done in a time.
type Window struct {
	DataPlanes    int     `json:"dataplanes"`
	Requests      uint64  `json:"requests"`
	ServerErrors  uint64  `json:"serverErrors"`
	GatewayErrors uint64  `json:"gatewayErrors"`
	P99Seconds    float64 `json:"p99Seconds"` // 0: not known
}

// Event is something that has happened.
type Event struct {
	At   time.Time `json:"at"`
	Text string    `json:"text"`
}

// RolloutFrom converts the answer of the control plane; nil: there is none.
func RolloutFrom(r *fleetv1.Rollout) *Rollout {
	if r == nil {
		return nil
	}
	d := &Rollout{
		Revision: r.GetRevision(), Version: r.GetVersion(), BaseRevision: r.GetBaseRevision(), BaseVersion: r.GetBaseVersion(),
		Phase: string(rollout.PhaseOf(r)), Reason: r.GetReason(), Steps: r.GetSteps(), Step: int(r.GetStep()) + 1,
		Chosen: append([]string{}, r.GetChosen()...), Applied: int(r.GetApplied()), DataPlanes: int(r.GetDataPlanes()),
		StartedAt: r.GetStartedAt().AsTime().UTC(), OnNew: windowFrom(r.GetOnNew()), OnOld: windowFrom(r.GetOnOld()),
		Events: make([]Event, 0, len(r.GetEvents())),
	}
	if r.GetBakeUntil() != nil {
		until := r.GetBakeUntil().AsTime().UTC()
		d.BakeUntil = &until
	}
	for _, e := range r.GetEvents() {
		d.Events = append(d.Events, Event{e.GetAt().AsTime().UTC(), e.GetText()})
	}
	return d
}

func windowFrom(w *fleetv1.Window) Window {
	return Window{int(w.GetDataPlanes()), w.GetRequests(), w.GetServerErrors(), w.GetGatewayErrors(), w.GetP99Seconds()}
}

// JSON returns the document; that of no roll-out is null.
func (r *Rollout) JSON() []byte { return document(r) }
