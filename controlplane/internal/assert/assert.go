// Package assert runs the tests of a configuration file against the route table that
// the file makes. It is pure, and decides nothing itself: package routetable says what
// becomes of a request, package explain puts it into words.
package assert

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"reverseproxy/controlplane/internal/config"
	"reverseproxy/controlplane/internal/explain"
	"reverseproxy/controlplane/internal/places"
	fleetv1 "reverseproxy/proto/fleet/v1"
	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// Check runs the tests. Its error is a *config.Errors with every expectation that does
// not hold, each at its place in the file. The name is that of the file.
func Check(name string, tests []config.Test, rt *routetablev1.RouteTable) error {
	if len(tests) == 0 {
		return nil
	}
	var problems []config.Problem
	index := places.NewIndex(rt)
	for i := range tests {
		t := &tests[i]
		found := func(at config.Position, path, why string) {
			subject := t.Method + " " + t.URL
			if t.Name != "" {
				subject = fmt.Sprintf("test %q: %s", t.Name, subject)
			}
			problems = append(problems, config.Problem{File: name, Position: at, Path: fmt.Sprintf("tests[%d]%s", i, path), Message: subject + ": " + why})
		}
		o, err := outcomeOf(rt, index, t)
		if err != nil {
			found(t.Position, "", err.Error())
			continue
		}
		for _, e := range t.Expect {
			if why := o.contradicts(e); why != "" {
				found(e.Position, ".expect."+string(e.Kind), why)
			}
		}
	}
	if len(problems) == 0 {
		return nil
	}
	slices.SortStableFunc(problems, func(a, b config.Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return &config.Errors{Problems: problems}
}

// outcome is what becomes of the request of a test.
type outcome struct {
	table   *routetablev1.RouteTable
	request *routetable.Request
	taken   *routetablev1.Endpoint // nil: none takes it
	answer  *fleetv1.ExplainResponse
}

func outcomeOf(rt *routetablev1.RouteTable, index *places.Index, t *config.Test) (*outcome, error) {
	q := &fleetv1.ExplainRequest{Method: t.Method, Url: t.URL}
	for _, h := range t.Headers {
		q.Headers = append(q.Headers, &fleetv1.Header{Name: h.Name, Value: h.Value})
	}
	r, err := explain.Request(q)
	if err != nil {
		return nil, err
	}
	o := &outcome{table: rt, request: r}
	taken, allow, err := index.Match(r)
	if err != nil {
		o.answer = &fleetv1.ExplainResponse{Status: http.StatusBadRequest}
		return o, nil
	}
	o.taken = taken
	o.answer, err = explain.Answer(rt, r, taken, allow)
	return o, err
}

// contradicts says why the expectation does not hold, or "".
func (o *outcome) contradicts(e config.Expectation) string {
	switch e.Kind {
	case config.ExpectEndpoint:
		return o.endpoint(e.Value)
	case config.ExpectBackendPath:
		return o.backendPath(e.Value)
	case config.ExpectStatus:
		return o.status(e.Value)
	case config.ExpectLocation:
		return o.location(e.Value)
	}
	return fmt.Sprintf("%s cannot be expected", e.Kind)
}

func (o *outcome) endpoint(want string) string {
	if want == cmp.Or(o.taken.GetName(), routetable.NoEndpoint) {
		return ""
	}
	if want == routetable.NoEndpoint {
		return o.happens() + "; none was to take it"
	}
	i, found := slices.BinarySearchFunc(o.table.GetEndpoints(), want, func(e *routetablev1.Endpoint, name string) int {
		return strings.Compare(e.GetName(), name)
	})
	if !found {
		return fmt.Sprintf("%s; no endpoint is named %s", o.happens(), want)
	}
	if reason := routetable.Mismatch(o.table.GetEndpoints()[i], o.request); reason != "" {
		return fmt.Sprintf("%s; %s does not: %s", o.happens(), want, reason)
	}
	return fmt.Sprintf("%s; %s matches too, but %s is more specific", o.happens(), want, o.taken.GetName())
}

func (o *outcome) backendPath(want string) string {
	if len(o.answer.GetBackends()) == 0 {
		return fmt.Sprintf("%s, and no backend is sent %s", o.happens(), want)
	}
	for _, b := range o.taken.GetPool() {
		target, err := routetable.Target(o.taken, b, o.request)
		if err != nil {
			return err.Error()
		}
		if !strings.Contains(want, "?") {
			target, _, _ = strings.Cut(target, "?")
		}
		if target != want {
			return fmt.Sprintf("%s, and backend %s is sent %s, not %s", o.happens(), b.GetUrl(), target, want)
		}
	}
	return ""
}

func (o *outcome) status(want string) string {
	got := o.answer.GetStatus()
	switch {
	case strconv.FormatUint(uint64(got), 10) == want:
		return ""
	case got == 0:
		return fmt.Sprintf("%s, and its backend decides about the status; %s can only be expected where the proxy answers itself", o.happens(), want)
	}
	return fmt.Sprintf("%s, and the proxy answers %d %s, not %s", o.happens(), got, http.StatusText(int(got)), want)
}

func (o *outcome) location(want string) string {
	if o.taken.GetRedirect() == nil {
		return o.happens() + ", and it is not redirected"
	}
	got, ok, err := explain.Location(o.taken, o.request)
	switch {
	case err != nil:
		return err.Error()
	case !ok:
		return o.happens() + ", but it has no host to be redirected to; write the url with one"
	case got != want:
		return fmt.Sprintf("%s, and it is redirected to %s, not %s", o.happens(), got, want)
	}
	return ""
}

// happens says who takes the request.
func (o *outcome) happens() string {
	switch {
	case o.taken != nil:
		return fmt.Sprintf("endpoint %s takes it", o.taken.GetName())
	case o.answer.GetStatus() == http.StatusBadRequest:
		return "the path is not valid, or it climbs above the root"
	case len(o.answer.GetAllow()) > 0:
		return "no endpoint takes it with this method, only with " + strings.Join(o.answer.GetAllow(), ", ")
	case o.answer.GetStatus() == http.StatusOK:
		return "no endpoint takes it, and it is for the data plane's own metrics"
	}
	return "no endpoint takes it"
}
