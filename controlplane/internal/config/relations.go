package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// relations checks what endpoints must be to each other, and gives those a name
// that have none.
func (r *reader) relations() {
	r.ties()
	r.names()
	r.requestIDsExist()
	r.idleQueues()
}

// ties reports endpoints that match the same requests with equal right. It
// leaves out those of which it is not known what they match.
func (r *reader) ties() {
	var known []int
	var conditions []*routetablev1.Endpoint
	for i := range r.config.Endpoints {
		if !r.entries[i].mismatch {
			known = append(known, i)
			conditions = append(conditions, r.config.Endpoints[i].Conditions())
		}
	}
	ties, err := routetable.Ties(conditions)
	for _, t := range ties {
		first, second := known[t.First], known[t.Second]
		e := &r.config.Endpoints[second]
		// A repetition of an alias is at one place, but no repetition of a problem.
		r.problemAt(e.Position, endpointPath(second),
			"matches the same requests as endpoints[%d] in line %d (both have %s); they must differ in from, host, methods or headers",
			first, r.config.Endpoints[first].Line, e.describe())
		r.entries[second].mismatch = true
	}
	if err != nil {
		r.problemAt(Position{}, (*path)(nil).field("endpoints"), "%s", err)
	}
}

func endpointPath(i int) *path { return (*path)(nil).field("endpoints").item(i) }

// describe says what an endpoint matches, as in the file.
func (e *Endpoint) describe() string {
	host := ""
	switch len(e.Hosts) {
	case 0:
	case 1:
		host = ", host " + quote(e.Hosts[0])
	default:
		host = fmt.Sprintf(", host %s and %d more", quote(e.Hosts[0]), len(e.Hosts)-1)
	}
	return "from " + quote(routetable.From(e.Path, e.Prefix)) + host
}

// Conditions returns the part of the endpoint's wire form that says which
// requests it matches; the rest is not set. The result shares the slices of e.
func (e *Endpoint) Conditions() *routetablev1.Endpoint {
	out := &routetablev1.Endpoint{Hosts: e.Hosts, Methods: e.Methods}
	if e.Prefix {
		out.Path = &routetablev1.Endpoint_Prefix{Prefix: e.Path}
	} else {
		out.Path = &routetablev1.Endpoint_Exact{Exact: e.Path}
	}
	for _, h := range e.Headers {
		out.Headers = append(out.Headers, &routetablev1.HeaderMatch{Name: h.Name, Value: h.Value})
	}
	return out
}

// names gives every endpoint a name of its own. A derived name does not depend
// on the order of the file: it is hosts and path, such as
// "shop.example.com/index". Where that would be the name of several, those with
// conditions have them in their names as well, such as "/index GET,HEAD x-beta=1".
func (r *reader) names() {
	endpoints := r.config.Endpoints
	owner := make(map[string]int, len(endpoints)) // by name
	wanted := map[string]int{}                    // endpoints without a name, by the name they would like
	for i := range endpoints {
		switch e := &endpoints[i]; {
		case e.Name != "":
			if first, taken := owner[e.Name]; taken {
				r.duplicateName(i, first)
			} else {
				owner[e.Name] = i
			}
		case !r.entries[i].mismatch && !r.entries[i].misnamed:
			wanted[e.place()]++
		}
	}
	for i := range endpoints {
		e := &endpoints[i]
		if e.Name != "" || r.entries[i].mismatch || r.entries[i].misnamed {
			continue
		}
		name := e.place()
		if _, taken := owner[name]; taken || wanted[name] > 1 {
			name += e.suffix()
		}
		e.Name = fit(name)
		if first, taken := owner[e.Name]; taken {
			r.duplicateName(i, first)
			continue
		}
		owner[e.Name] = i
	}
}

func (r *reader) duplicateName(i, first int) {
	r.problemAt(r.entries[i].name, endpointPath(i).field("name"),
		"%s is already the name of endpoints[%d] in line %d; give each a name of its own",
		quote(r.config.Endpoints[i].Name), first, r.config.Endpoints[first].Line)
}

// place is hosts and path.
func (e *Endpoint) place() string {
	return strings.Join(e.Hosts, ",") + routetable.From(e.Path, e.Prefix)
}

// suffix tells endpoints of one place apart.
func (e *Endpoint) suffix() string {
	var b strings.Builder
	if len(e.Methods) > 0 {
		b.WriteString(" " + strings.Join(e.Methods, ","))
	}
	for _, h := range e.Headers {
		value := h.Value
		if strings.ContainsFunc(value, unicode.IsControl) {
			value = strconv.Quote(value)
		}
		b.WriteString(" " + h.Name + "=" + value)
	}
	return b.String()
}

// fit shortens a name that is too long; a digest keeps it distinct.
func fit(name string) string {
	if len(name) <= routetable.MaxNameBytes {
		return name
	}
	digest := sha256.Sum256([]byte(name))
	mark := "~" + hex.EncodeToString(digest[:4])
	cut := routetable.MaxNameBytes - len(mark)
	for !utf8.RuneStart(name[cut]) {
		cut--
	}
	return name[:cut] + mark
}
