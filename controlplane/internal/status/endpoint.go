package status

import (
	"math"
	"slices"
	"strings"

	fleetv1 "reverseproxy/proto/fleet/v1"
)

// Endpoint is one endpoint, over the data planes on which it is in use.
type Endpoint struct {
	Name     string    `json:"name"`
	Backends []Backend `json:"backends"` // in pool order
}

// Backend is one URL of its pool.
type Backend struct {
	URL      string `json:"url"`
	Weight   uint32 `json:"weight"` // 0 while it is drained
	Draining bool   `json:"draining"`
	// DataPlanes is how many have reported on it, Healthy how many of them can use it.
	DataPlanes int       `json:"dataplanes"`
	Healthy    int       `json:"healthy"`
	Troubles   []Trouble `json:"troubles"` // why the others cannot; never null
	// The rates are those of the last reports, the totals since the data planes
	// started. An error is a failure or a status of 500 or more.
	RequestsPerSecond float64 `json:"requestsPerSecond"`
	ErrorsPerSecond   float64 `json:"errorsPerSecond"`
	InFlight          uint64  `json:"inFlight"`
	RequestsTotal     uint64  `json:"requestsTotal"`
	ErrorsTotal       uint64  `json:"errorsTotal"`
}

// Trouble is why a number of data planes cannot use a backend.
type Trouble struct {
	Reason     string `json:"reason"`
	DataPlanes int    `json:"dataplanes"`
}

// EndpointsFrom converts the answer of the control plane. The endpoints are sorted by
// name.
func EndpointsFrom(r *fleetv1.BackendsResponse) []Endpoint {
	var list []Endpoint
	number := map[string]int{}
	for _, b := range r.GetBackends() {
		i, ok := number[b.GetEndpoint()]
		if !ok {
			i = len(list)
			number[b.GetEndpoint()] = i
			list = append(list, Endpoint{Name: b.GetEndpoint()})
		}
		list[i].Backends = append(list[i].Backends, backendFrom(b))
	}
	slices.SortFunc(list, func(a, b Endpoint) int { return strings.Compare(a.Name, b.Name) })
	return list
}

func backendFrom(b *fleetv1.BackendStatus) Backend {
	out := Backend{
		URL: b.GetUrl(), Weight: b.GetWeight(), Draining: b.GetDraining(),
		DataPlanes: int(b.GetDataPlanes()), Healthy: int(b.GetHealthy()), Troubles: make([]Trouble, 0, len(b.GetTroubles())),
		RequestsPerSecond: rounded(b.GetRequestsPerSecond()), ErrorsPerSecond: rounded(b.GetFailuresPerSecond()),
		InFlight: b.GetInFlight(), RequestsTotal: b.GetRequests(), ErrorsTotal: b.GetFailures(),
	}
	for _, t := range b.GetTroubles() {
		out.Troubles = append(out.Troubles, Trouble{t.GetReason(), int(t.GetDataPlanes())})
	}
	return out
}

func rounded(x float64) float64 { return math.Round(x*1000) / 1000 }

// JSON returns the document about one endpoint.
func (e Endpoint) JSON() []byte { return document(e) }
