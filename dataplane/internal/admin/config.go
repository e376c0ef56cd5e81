package admin

import (
	"time"

	"reverseproxy/dataplane/internal/activate"
)

// configView is the answer of /config. Everything but endpoints is absent before
// the first route table.
type configView struct {
	Version   string         `json:"version,omitempty"`
	Revision  uint64         `json:"revision,omitempty"`
	Source    string         `json:"source,omitempty"`
	Port      uint16         `json:"port,omitempty"`    // as in the route table
	Address   string         `json:"address,omitempty"` // the proxy really listens on
	AppliedAt *time.Time     `json:"appliedAt,omitempty"`
	Endpoints []endpointView `json:"endpoints"`
}

type endpointView struct {
	Name string        `json:"name"`
	Pool []backendView `json:"pool"`
}

type backendView struct {
	URL    string `json:"url"`
	Weight uint32 `json:"weight"`
}

func describe(f *activate.InForce) configView {
	v := configView{Endpoints: []endpointView{}}
	if f == nil {
		return v
	}
	at := f.AppliedAt.UTC()
	v.Version, v.Revision, v.Source = f.Table.Version, f.Revision, string(f.Source)
	v.Port, v.Address, v.AppliedAt = f.Table.Port, f.Address, &at
	for _, e := range f.Table.Endpoints {
		pool := make([]backendView, 0, len(e.Pool.Backends))
		for _, b := range e.Pool.Backends {
			pool = append(pool, backendView{URL: b.URL, Weight: b.Weight})
		}
		v.Endpoints = append(v.Endpoints, endpointView{Name: e.Name, Pool: pool})
	}
	return v
}
