package compile

import (
	"cmp"
	"slices"
	"strings"

	"reverseproxy/controlplane/internal/config"
	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// answers fills in what an endpoint does instead of forwarding, if it does.
func answers(out *routetablev1.Endpoint, e *config.Endpoint) {
	switch {
	case e.Redirect != nil:
		out.Answer = &routetablev1.Endpoint_Redirect{Redirect: &routetablev1.Redirect{To: e.Redirect.To, Status: e.Redirect.Status}}
	case e.Respond != nil:
		out.Answer = &routetablev1.Endpoint_Respond{Respond: &routetablev1.Respond{
			Status: e.Respond.Status, Body: []byte(e.Respond.Body), Headers: fields(e.Respond.Headers),
		}}
	}
}

// withoutPool leaves out what defaults say about backends: an endpoint that answers by
// itself has none.
func withoutPool(out *routetablev1.Endpoint) {
	out.ReplaceHost, out.RefuseWhenUnhealthy = false, false
	out.ActiveCheck, out.PassiveCheck, out.Retry, out.LoadBalancing = nil, nil, nil, nil
	out.MaxRequests, out.Queue = 0, nil
}

// edits fills in what is done with header fields and the path.
func edits(out *routetablev1.Endpoint, e *config.Endpoint, defaults *config.Defaults) {
	out.ResponseHeaders = headerEdits(join(e.ResponseHeaders, defaults.ResponseHeaders))
	if out.Answer != nil {
		return // the others are about requests, which nobody gets
	}
	out.RequestHeaders = headerEdits(join(e.RequestHeaders, defaults.RequestHeaders))
	switch w := e.Rewrite; {
	case w == nil:
	case w.Match != "":
		out.Rewrite = &routetablev1.Rewrite{To: &routetablev1.Rewrite_Regex{Regex: &routetablev1.Regex{Match: w.Match, Replace: w.Replace}}}
	case w.Prefix != "":
		out.Rewrite = &routetablev1.Rewrite{To: &routetablev1.Rewrite_Prefix{Prefix: w.Prefix}}
	default:
		out.Rewrite = &routetablev1.Rewrite{To: &routetablev1.Rewrite_Path{Path: w.Path}}
	}
}

// join adds to the edits of an endpoint those of the defaults, except for fields that
// the endpoint's are about.
func join(own, defaults *config.HeaderEdits) *config.HeaderEdits {
	if own == nil || defaults == nil {
		return cmp.Or(own, defaults)
	}
	mine := map[string]bool{}
	for _, h := range slices.Concat(own.Set, own.Add) {
		mine[lower(h.Name)] = true
	}
	for _, name := range own.Remove {
		mine[name] = true
	}
	others := func(list []config.Header) []config.Header {
		return slices.DeleteFunc(slices.Clone(list), func(h config.Header) bool { return mine[lower(h.Name)] })
	}
	out := &config.HeaderEdits{
		Set: slices.Concat(own.Set, others(defaults.Set)), Add: slices.Concat(own.Add, others(defaults.Add)),
		Remove: slices.Concat(own.Remove, slices.DeleteFunc(slices.Clone(defaults.Remove), func(name string) bool { return mine[name] })),
	}
	byName := func(a, b config.Header) int { return strings.Compare(lower(a.Name), lower(b.Name)) }
	slices.SortFunc(out.Set, byName)
	slices.SortFunc(out.Add, byName)
	slices.Sort(out.Remove)
	return out
}

func lower(name string) string { return string(routetable.AppendLower(nil, name)) }

func headerEdits(e *config.HeaderEdits) *routetablev1.HeaderEdits {
	if e == nil {
		return nil
	}
	return &routetablev1.HeaderEdits{Set: fields(e.Set), Add: fields(e.Add), Remove: e.Remove}
}

func fields(list []config.Header) (out []*routetablev1.Header) {
	for _, h := range list {
		out = append(out, &routetablev1.Header{Name: h.Name, Value: h.Value})
	}
	return out
}
