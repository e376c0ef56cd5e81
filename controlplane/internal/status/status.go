// Package status defines the JSON form of the fleet's state, the same from
// GET /api/v1/status and from `controlplane status -o json`. Users script
// against it.
package status

import (
	"encoding/json"
	"math"
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
	Error              string            `json:"error"`
}

// From converts the answer of the control plane.
func From(r *fleetv1.StatusResponse) Status {
	s := Status{
		Version: r.GetVersion(), Revision: r.GetRevision(),
		Config: Config{
			File: r.GetConfig().GetFile(), LastLoad: "ok", Error: r.GetConfig().GetError(),
			LoadedAt: r.GetConfig().GetLoadedAt().AsTime().UTC(),
		},
		DataPlanes: make([]DataPlane, 0, len(r.GetDataplanes())),
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
			LastContactSeconds: math.Round(d.GetLastContactSeconds()*1000) / 1000,
			RequestsTotal:      d.GetRequestsTotal(), Error: d.GetError(),
		})
	}
	return s
}

// JSON returns the document, indented for people, with a line break at the end.
func (s Status) JSON() []byte {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		panic("status: strings, numbers and finite floats always marshal: " + err.Error())
	}
	return append(data, '\n')
}
