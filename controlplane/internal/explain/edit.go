package explain

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	fleetv1 "reverseproxy/proto/fleet/v1"
	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// itself fills in what an endpoint without a pool answers.
func itself(answer *fleetv1.ExplainResponse, e *routetablev1.Endpoint, r *routetable.Request) error {
	switch a := e.GetAnswer().(type) {
	case *routetablev1.Endpoint_Redirect:
		location, ok, err := Location(e, r)
		if err != nil {
			return err
		}
		if !ok {
			answer.Status = http.StatusBadRequest
			answer.Settings = append(answer.Settings, "redirect: there is no host to send the client to")
			return nil
		}
		answer.Status = a.Redirect.GetStatus()
		answer.Settings = append(answer.Settings, fmt.Sprintf("redirect: to %s", location))
	case *routetablev1.Endpoint_Respond:
		answer.Status = a.Respond.GetStatus()
		answer.Settings = append(answer.Settings, fmt.Sprintf("respond: a fixed answer of %d bytes", len(a.Respond.GetBody())))
	}
	return nil
}

// Location returns where an endpoint that redirects sends the client. What depends on
// the connection stays a variable. ok is false when it needs a host and the request has
// none, which is answered 400.
func Location(e *routetablev1.Endpoint, r *routetable.Request) (location string, ok bool, err error) {
	to, err := routetable.ParseLocation(e.GetRedirect().GetTo())
	if err != nil {
		return "", false, fmt.Errorf("endpoint %s: %w", e.GetName(), err)
	}
	if to.UsesHost() && r.Host == "" {
		return "", false, nil
	}
	return string(to.AppendLocation(nil, &routetable.Values{
		Client: []byte("${client}"), Endpoint: e.GetName(), Host: []byte(r.Host), Method: []byte(r.Method), Path: []byte(r.Path),
		Query: []byte(r.Query), HasQuery: r.HasQuery, RequestID: []byte("${requestId}"), Scheme: "http",
	})), true, nil
}

// target returns what a backend is asked for; ok is false when a rewrite makes no
// valid path, which is answered 400.
func target(e *routetablev1.Endpoint, b *routetablev1.Backend, r *routetable.Request) (target string, ok bool, err error) {
	target, err = routetable.Target(e, b, r)
	switch {
	case err == nil:
		return target, true, nil
	case errors.Is(err, routetable.ErrPath) && e.GetRewrite() != nil:
		return "", false, nil
	}
	return "", false, fmt.Errorf("endpoint %s, backend %s: %w", e.GetName(), b.GetUrl(), err)
}

func requestHeaders(e *routetablev1.Endpoint) string {
	return edits("request headers", e.GetRequestHeaders())
}

func responseHeaders(e *routetablev1.Endpoint) string {
	return edits("response headers", e.GetResponseHeaders())
}

func edits(what string, h *routetablev1.HeaderEdits) string {
	if h == nil {
		return ""
	}
	var parts []string
	list := func(verb string, fields []*routetablev1.Header) {
		for _, f := range fields {
			parts = append(parts, fmt.Sprintf("%s %s: %s", verb, f.GetName(), f.GetValue()))
		}
	}
	if len(h.GetRemove()) > 0 {
		parts = append(parts, "remove "+strings.Join(h.GetRemove(), ", "))
	}
	list("set", h.GetSet())
	list("add", h.GetAdd())
	return what + ": " + strings.Join(parts, "; ")
}

func rewrite(e *routetablev1.Endpoint) string {
	switch to := e.GetRewrite().GetTo().(type) {
	case *routetablev1.Rewrite_Path:
		return "rewrite: the path becomes " + to.Path
	case *routetablev1.Rewrite_Prefix:
		return fmt.Sprintf("rewrite: the prefix %s becomes %s", e.GetPrefix(), to.Prefix)
	case *routetablev1.Rewrite_Regex:
		return fmt.Sprintf("rewrite: what matches %s becomes %s", to.Regex.GetMatch(), to.Regex.GetReplace())
	}
	return ""
}
