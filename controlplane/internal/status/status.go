// Package status defines the JSON form of the fleet's state, the same from
// GET /api/v1/status and from `controlplane status -o json`. Users script
// against it.
package status

import (
	"encoding/json"
	"time"

	"reverseproxy/controlplane/internal/fleet"
	fleetv1 "reverseproxy/proto/fleet/v1"
)

// Status is the fleet at one moment.
type Status struct {
	Version    string      `json:"version"`
	Revision   uint64      `json:"revision"`
	Config     Config      `json:"config"`
	DataPlanes []DataPlane `json:"dataplanes"` // never null
	Draining   []Drained   `json:"draining"`   // never null
	// UnhealthyBackends is how many backends some data plane cannot use.
	UnhealthyBackends int `json:"unhealthyBackends"`
	// Rollout is there while one is going on, and after it was aborted until the file
	// has other content.
	Rollout *Rollout `json:"rollout,omitempty"`
	// Endpoints are there when they are asked for.
	Endpoints []Endpoint `json:"endpoints,omitempty"`
}

// Config is the state of the watched file.
type Config struct {
	File string `json:"file"`
	// LastLoad is "ok" when the newest content is the running configuration,
	// else "error".
	LastLoad string `json:"lastLoad"`
	Error    string `json:"error"`
	// LoadedAt is when the running configuration was accepted.
	LoadedAt time.Time `json:"loadedAt"`
}

// DataPlane is one data plane as the control plane knows it.
type DataPlane struct {
	ID                 string            `json:"id"`
	Address            string            `json:"address"`
	Labels             map[string]string `json:"labels"` // never null
	State              string            `json:"state"`
	Version            string            `json:"version"`
	Revision           uint64            `json:"revision"`
	Source             string            `json:"source"` // "stream", "disk"; empty: serves nothing yet
	LastContactSeconds float64           `json:"lastContactSeconds"`
	RequestsTotal      uint64            `json:"requestsTotal"`
	FailuresTotal      uint64            `json:"failuresTotal"` // answered with a 5xx status by the data plane itself
	Error              string            `json:"error"`
	Build              string            `json:"build"`
}

// Drained is a backend that was drained.
type Drained struct {
	URL string `json:"url"`
	// InFile is whether a pool of the file has it.
	InFile bool `json:"inFile"`
	// InFlight is as far as the data planes have told, DataPlanes how many of them
	// have such requests.
	InFlight   uint64 `json:"inFlight"`
	DataPlanes int    `json:"dataplanes"`
	// Unsettled are the ids of the data planes that may still have requests in
	// flight to it; never null.
	Unsettled []string `json:"unsettled"`
}

// From converts the answer of the control plane.
func From(r *fleetv1.StatusResponse) Status {
	s := Status{
		Version: r.GetVersion(), Revision: r.GetRevision(),
		Config: Config{
			File: r.GetConfig().GetFile(), LastLoad: "ok", Error: r.GetConfig().GetError(),
			LoadedAt: r.GetConfig().GetLoadedAt().AsTime().UTC(),
		},
		DataPlanes:        make([]DataPlane, 0, len(r.GetDataplanes())),
		Draining:          make([]Drained, 0, len(r.GetDraining())),
		UnhealthyBackends: int(r.GetUnhealthyBackends()),
		Rollout:           RolloutFrom(r.GetRollout()),
	}
	for _, d := range r.GetDraining() {
		unsettled := make([]string, 0, len(d.GetHolders()))
		for _, h := range d.GetHolders() {
			unsettled = append(unsettled, h.GetId())
		}
		s.Draining = append(s.Draining, Drained{
			URL: d.GetUrl(), InFile: d.GetConfigured(), InFlight: d.GetInFlight(), DataPlanes: int(d.GetDataPlanes()), Unsettled: unsettled,
		})
	}
	if !r.GetConfig().GetOk() {
		s.Config.LastLoad = "error"
	}
	for _, d := range r.GetDataplanes() {
		labels := d.GetLabels()
		if labels == nil {
			labels = map[string]string{}
		}
		s.DataPlanes = append(s.DataPlanes, DataPlane{
			ID: d.GetId(), Address: d.GetAddress(), Labels: labels, State: fleet.StateName(d.GetState()),
			Version: d.GetVersion(), Revision: d.GetRevision(), Source: d.GetSource(),
			LastContactSeconds: rounded(d.GetLastContactSeconds()),
			RequestsTotal:      d.GetRequestsTotal(), FailuresTotal: d.GetFailuresTotal(), Error: d.GetError(), Build: d.GetBuild(),
		})
	}
	return s
}

// JSON returns the document, indented for people, with a line break at the end.
func (s Status) JSON() []byte { return document(s) }

func document(v any) []byte { return encode(json.MarshalIndent(v, "", "  ")) }

func compact(v any) []byte { return encode(json.Marshal(v)) }

func encode(data []byte, err error) []byte {
	if err != nil {
		panic("status: strings, numbers and finite floats always marshal: " + err.Error())
	}
	return append(data, '\n')
}
