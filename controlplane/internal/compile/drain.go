package compile

import (
	"google.golang.org/protobuf/proto"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

// Drain returns the table with weight 0 for every backend whose URL is drained. The
// table given is not changed; what needs no change is shared with it.
func Drain(t *routetablev1.RouteTable, drained map[string]bool) *routetablev1.RouteTable {
	out := t
	if len(drained) == 0 {
		return out
	}
	for i, e := range t.GetEndpoints() {
		if !concerned(e, drained) {
			continue
		}
		if out == t {
			out = shallow(t)
		}
		e = proto.CloneOf(e)
		for _, b := range e.GetPool() {
			if drained[b.GetUrl()] {
				b.Weight = 0
			}
		}
		out.Endpoints[i] = e
	}
	return out
}

// concerned reports whether draining changes the endpoint.
func concerned(e *routetablev1.Endpoint, drained map[string]bool) bool {
	for _, b := range e.GetPool() {
		if b.GetWeight() > 0 && drained[b.GetUrl()] {
			return true
		}
	}
	return false
}

// shallow returns a table with a list of endpoints of its own.
func shallow(t *routetablev1.RouteTable) *routetablev1.RouteTable {
	out := &routetablev1.RouteTable{}
	to := out.ProtoReflect()
	for field, value := range t.ProtoReflect().Range {
		to.Set(field, value)
	}
	out.Endpoints = append([]*routetablev1.Endpoint(nil), t.GetEndpoints()...)
	return out
}

// Emptied returns the names of the endpoints that get no backend from the new table
// any more and had one in the old: their requests would be answered 503. Both tables
// have the same endpoints.
func Emptied(old, new *routetablev1.RouteTable) []string {
	var names []string
	for i, e := range new.GetEndpoints() {
		if e != old.GetEndpoints()[i] && !served(e) && served(old.GetEndpoints()[i]) {
			names = append(names, e.GetName())
		}
	}
	return names
}

// served reports whether a backend of the endpoint gets requests.
func served(e *routetablev1.Endpoint) bool {
	for _, b := range e.GetPool() {
		if b.GetWeight() > 0 {
			return true
		}
	}
	return false
}
