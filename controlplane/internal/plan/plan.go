// Package plan says what a configuration would change, and what that means for the
// requests that the fleet has seen in the last minutes. It is pure: two route tables
// and what package traffic knows in, words and figures out. What becomes of a request
// is decided by package routetable alone.
package plan

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"reverseproxy/controlplane/internal/diff"
	"reverseproxy/controlplane/internal/traffic"
	fleetv1 "reverseproxy/proto/fleet/v1"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// Input is what a plan is made of.
type Input struct {
	// Running is the desired table, and Planned the one that would take its place; in
	// both, drained backends have no weight.
	Running, Planned *routetablev1.RouteTable
	// Since is from when on samples are of Running.
	Since   time.Time
	Rates   traffic.Rates
	Samples traffic.Samples
}

// Make returns the plan, without the versions, the revision and the drop.
func Make(in Input) *fleetv1.PlanResponse {
	p := &planner{
		Input: in, running: newSide(in.Running), planned: newSide(in.Planned),
		live:  make(map[string]traffic.EndpointRate, len(in.Rates.Endpoints)),
		flows: map[flow]*amount{}, seen: map[string]float64{}, uncertain: map[string]float64{},
	}
	for _, r := range in.Rates.Endpoints {
		p.live[r.Endpoint] = r
	}
	p.pair()
	p.judge()
	impacts := p.impacts()
	answer := &fleetv1.PlanResponse{
		Changes: diff.Tables(in.Running, in.Planned),
		Impacts: impacts,
		Basis: &fleetv1.PlanBasis{
			DataPlanes:        uint32(max(in.Rates.DataPlanes, in.Samples.DataPlanes)),
			WithoutSamples:    uint32(in.Samples.WithoutSamples),
			RequestsPerSecond: in.Rates.RequestsPerSecond,
			Samples:           uint32(len(in.Samples.List)),
			Over:              durationpb.New(in.Samples.Over),
			Moved:             p.share(p.moved),
			Lost:              p.share(p.lost),
			Unknown:           p.share(p.unknown),
		},
	}
	for _, i := range impacts {
		answer.LosesTraffic = answer.LosesTraffic || i.GetLosesTraffic()
	}
	return answer
}

// planner is one plan that is being made.
type planner struct {
	Input
	running, planned *side
	live             map[string]traffic.EndpointRate // rates, by endpoint
	// successor is the planned endpoint that is what a running one is, by the name of
	// that: the one of its name, or one that differs in its name alone.
	successor map[string]*routetablev1.Endpoint

	// Sums of the weights of samples.
	all, moved, lost, unknown float64
	// flows are the samples whose requests another endpoint would take, or none.
	flows map[flow]*amount
	// seen are the samples that an endpoint takes now, by its name; uncertain are those
	// of them about which the plan knows nothing.
	seen, uncertain map[string]float64
}

// pair finds the successors.
func (p *planner) pair() {
	p.successor = make(map[string]*routetablev1.Endpoint, len(p.running.endpoints))
	var gone []*routetablev1.Endpoint
	for _, e := range p.Running.GetEndpoints() {
		if next := p.planned.endpoints[e.GetName()]; next != nil {
			p.successor[e.GetName()] = next
			continue
		}
		gone = append(gone, e)
	}
	if len(gone) == 0 {
		return
	}
	added := map[string]*routetablev1.Endpoint{}
	for _, e := range p.Planned.GetEndpoints() {
		if p.running.endpoints[e.GetName()] == nil {
			added[content(e)] = e
		}
	}
	for _, e := range gone {
		if next := added[content(e)]; next != nil {
			p.successor[e.GetName()] = next
		}
	}
}

// judge finds out what becomes of each sample.
func (p *planner) judge() {
	for i := range p.Samples.List {
		s := &p.Samples.List[i]
		p.all += s.Weight
		p.sample(s)
	}
}

// share is a part of all samples.
func (p *planner) share(weight float64) float64 {
	if p.all == 0 {
		return 0
	}
	return weight / p.all
}
