package status

import (
	"slices"
	"strings"
	"time"

	"reverseproxy/controlplane/internal/traffic"
	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// Traffic is what the fleet's endpoints have to do: the document of
// GET /api/v1/endpoints. An error is an answer with a status of 500 or more.
type Traffic struct {
	// DataPlanes is how many have told about their requests.
	DataPlanes        int     `json:"dataplanes"`
	RequestsPerSecond float64 `json:"requestsPerSecond"`
	ErrorsPerSecond   float64 `json:"errorsPerSecond"`
	// Incomplete: there was no room for all that was told; rates are too low.
	Incomplete bool `json:"incomplete"`
	// Times, the oldest first, are those to which the lists of rates belong: some five
	// seconds apart, over ten minutes.
	Times []time.Time `json:"times"` // never null
	Rates
	// Configured is how many endpoints there are, Matching how many of them match the
	// search; at most as many as asked for are listed, the busiest first.
	Configured int               `json:"configured"`
	Matching   int               `json:"matching"`
	Endpoints  []EndpointTraffic `json:"endpoints"` // never null
}

// EndpointTraffic is one endpoint over the whole fleet.
type EndpointTraffic struct {
	Name string `json:"name"`
	// Takes is which requests it takes, for people; empty for those that no endpoint
	// takes, which have the name none.
	Takes string `json:"takes"`
	// PoolSize is how many backends it has.
	PoolSize int `json:"poolSize"`
	// DataPlanes is on how many it has requests at the moment.
	DataPlanes        int     `json:"dataplanes"`
	RequestsPerSecond float64 `json:"requestsPerSecond"`
	ErrorsPerSecond   float64 `json:"errorsPerSecond"`
	// The busiest have their past, too.
	Rates
	// Backends are there when one endpoint was asked for by its name.
	Backends []Backend `json:"backends,omitempty"`
}

// Rates are those of the last minutes, one for each of the times.
type Rates struct {
	Requests []float64 `json:"requests,omitempty"`
	Errors   []float64 `json:"errors,omitempty"`
}

// Look is what the document is made from: the endpoints and their rates at one moment.
// It may be used from several goroutines.
type Look struct {
	table  *routetablev1.RouteTable
	rates  traffic.Rates
	series traffic.Series
	errors float64
	// order is the endpoints, the busiest first and those without requests by name.
	order []seen
}

// seen is an endpoint with its rates; nil: it takes what no other does.
type seen struct {
	endpoint *routetablev1.Endpoint
	rate     traffic.EndpointRate
}

// NewLook looks at the rates of a table's endpoints.
func NewLook(table *routetablev1.RouteTable, rates traffic.Rates, series traffic.Series) *Look {
	l := &Look{table: table, rates: rates, series: series, order: make([]seen, 0, len(table.GetEndpoints()))}
	left := make(map[string]*routetablev1.Endpoint, len(table.GetEndpoints()))
	for _, e := range table.GetEndpoints() {
		left[e.GetName()] = e
	}
	for _, r := range rates.Endpoints {
		l.errors += r.Failures
		e := left[r.Endpoint]
		if e != nil || r.Endpoint == routetable.NoEndpoint { // others have left the table
			l.order = append(l.order, seen{e, r})
			delete(left, r.Endpoint)
		}
	}
	for _, e := range table.GetEndpoints() {
		if left[e.GetName()] != nil {
			l.order = append(l.order, seen{e, traffic.EndpointRate{Endpoint: e.GetName()}})
		}
	}
	return l
}

// Traffic returns the document about the endpoints that match, at most as many as
// given.
func (l *Look) Traffic(match func(name, takes string) bool, most int) Traffic {
	t := Traffic{
		DataPlanes: l.rates.DataPlanes, RequestsPerSecond: rounded(l.rates.RequestsPerSecond), ErrorsPerSecond: rounded(l.errors),
		Incomplete: l.rates.Incomplete, Times: make([]time.Time, 0, len(l.series.Times)), Rates: ratesFrom(l.series.All),
		Configured: len(l.table.GetEndpoints()), Endpoints: []EndpointTraffic{},
	}
	for _, at := range l.series.Times {
		t.Times = append(t.Times, at.UTC().Truncate(time.Second))
	}
	for _, s := range l.order {
		takes := takes(s.endpoint)
		if !match(s.rate.Endpoint, takes) {
			continue
		}
		if t.Matching++; t.Matching <= most {
			t.Endpoints = append(t.Endpoints, EndpointTraffic{
				Name: s.rate.Endpoint, Takes: takes, PoolSize: len(s.endpoint.GetPool()), DataPlanes: s.rate.DataPlanes,
				RequestsPerSecond: rounded(s.rate.Requests), ErrorsPerSecond: rounded(s.rate.Failures), Rates: l.past(s.rate.Endpoint),
			})
		}
	}
	return t
}

// past returns the rates of an endpoint in the last minutes; none: it is not one of the
// busiest.
func (l *Look) past(name string) Rates {
	i := slices.IndexFunc(l.series.Endpoints, func(e traffic.EndpointSeries) bool { return e.Endpoint == name })
	if i < 0 {
		return Rates{}
	}
	return ratesFrom(l.series.Endpoints[i].Rates)
}

func ratesFrom(list []traffic.Rate) (r Rates) {
	for _, x := range list {
		r.Requests = append(r.Requests, rounded(x.Requests))
		r.Errors = append(r.Errors, rounded(x.Failures))
	}
	return r
}

// takes says which requests an endpoint takes, such as "GET, HEAD shop.example.com/assets/*".
// The values of headers are not told: they may be secrets.
func takes(e *routetablev1.Endpoint) string {
	if e == nil {
		return ""
	}
	text := e.GetExact()
	if _, prefix := e.GetPath().(*routetablev1.Endpoint_Prefix); prefix {
		text = routetable.From(e.GetPrefix(), true)
	}
	switch hosts := e.GetHosts(); len(hosts) {
	case 0:
	case 1:
		text = hosts[0] + text
	default:
		text = "{" + strings.Join(hosts, ", ") + "}" + text
	}
	if methods := e.GetMethods(); len(methods) > 0 {
		text = strings.Join(methods, ", ") + " " + text
	}
	for _, h := range e.GetHeaders() {
		text += " with " + h.GetName()
	}
	return text
}

// JSON returns the document. It is not indented: most of it is numbers.
func (t Traffic) JSON() []byte { return compact(t) }
