// Package explain says what a data plane does with a request, and why: which
// endpoint takes it, what each backend would be sent, and what keeps the other
// endpoints from it. It is pure, and decides nothing itself: package routetable
// does.
package explain

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"reverseproxy/proto/routetable"

	fleetv1 "reverseproxy/proto/fleet/v1"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// maxMismatches bounds the answer; the most telling ones are kept.
const maxMismatches = 100

// ParseURL splits an absolute URL, or a path alone, into what a client would
// send: host and target. Nothing is decoded or cleaned: a proxy has to decide
// about the bytes as they come.
func ParseURL(raw string) (host, path, query string, hasQuery bool, err error) {
	if i := strings.IndexFunc(raw, func(r rune) bool { return r <= ' ' || r >= 0x7f }); i >= 0 {
		return "", "", "", false, fmt.Errorf("URL %q has a character that cannot be sent; percent-encode it", raw)
	}
	rest := raw
	if !strings.HasPrefix(raw, "/") {
		scheme, after, ok := strings.Cut(raw, "://")
		if !ok || !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https") {
			return "", "", "", false, fmt.Errorf("URL %q is neither http://host/path nor a path that begins with a slash", raw)
		}
		end := len(after)
		if i := strings.IndexAny(after, "/?#"); i >= 0 {
			end = i
		}
		host, rest = after[:end], after[end:]
		switch {
		case host == "":
			return "", "", "", false, fmt.Errorf("URL %q has no host", raw)
		case strings.Contains(host, "@"):
			return "", "", "", false, errors.New("a URL with user and password is not supported; give an Authorization header instead")
		}
	}
	rest, _, _ = strings.Cut(rest, "#") // clients keep the fragment
	path, query, hasQuery = strings.Cut(rest, "?")
	return host, cmp.Or(path, "/"), query, hasQuery, nil
}

// Explain answers for one request. An error means that the question makes no
// sense; that no endpoint takes the request is an answer.
func Explain(rt *routetablev1.RouteTable, q *fleetv1.ExplainRequest) (*fleetv1.ExplainResponse, error) {
	r, err := Request(q)
	if err != nil {
		return nil, err
	}
	taken, allow, err := routetable.Match(rt, r)
	if err != nil {
		return &fleetv1.ExplainResponse{Status: http.StatusBadRequest}, nil
	}
	answer, err := Answer(rt, r, taken, allow)
	if err != nil {
		return nil, err
	}
	answer.Mismatches, answer.MismatchesOmitted = mismatches(rt, taken, r)
	return answer, nil
}

// Answer says what becomes of a request, but not why. It is given what
// routetable.Match has found.
func Answer(rt *routetablev1.RouteTable, r *routetable.Request, taken *routetablev1.Endpoint, allow []string) (*fleetv1.ExplainResponse, error) {
	answer := &fleetv1.ExplainResponse{}
	switch {
	case taken != nil:
		if err := backends(answer, taken, r); err != nil {
			return nil, err
		}
	case len(allow) > 0:
		answer.Status, answer.Allow = http.StatusMethodNotAllowed, allow
	case r.Path == "/metrics" && (r.Method == http.MethodGet || r.Method == http.MethodHead) && !rt.GetHideMetricsOnProxyPort():
		answer.Status = http.StatusOK
	default:
		answer.Status = http.StatusNotFound
	}
	return answer, nil
}

// Check returns an error when the question makes no sense.
func Check(q *fleetv1.ExplainRequest) error {
	_, err := Request(q)
	return err
}

// Request turns the question into what matching looks at. A Host field wins over
// the URL's host, as it does in clients.
func Request(q *fleetv1.ExplainRequest) (*routetable.Request, error) {
	host, path, query, hasQuery, err := ParseURL(q.GetUrl())
	if err != nil {
		return nil, err
	}
	method := cmp.Or(q.GetMethod(), http.MethodGet)
	if !token(method) {
		return nil, fmt.Errorf("method %q is not a token (RFC 9110 section 5.6.2)", method)
	}
	fields := map[string][]string{}
	for _, h := range q.GetHeaders() {
		name := strings.ToLower(h.GetName())
		if !token(name) {
			return nil, fmt.Errorf("header name %q is not a token (RFC 9110 section 5.6.2)", h.GetName())
		}
		if strings.ContainsAny(h.GetValue(), "\r\n\x00") {
			return nil, fmt.Errorf("value of header %q has a line break or NUL (RFC 9110 section 5.5)", h.GetName())
		}
		value := strings.Trim(h.GetValue(), " \t")
		if name == "host" {
			host = value
			continue
		}
		fields[name] = append(fields[name], value)
	}
	return &routetable.Request{
		Method: method, Host: host, Path: path, Query: query, HasQuery: hasQuery,
		Header: func(name string) []string { return fields[name] },
	}, nil
}

// token reports whether s is a token by RFC 9110 section 5.6.2.
func token(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	})
}

// backends fills in who takes the request.
func backends(answer *fleetv1.ExplainResponse, e *routetablev1.Endpoint, r *routetable.Request) error {
	answer.Endpoint, answer.Settings = e.GetName(), settings(e)
	if e.GetAnswer() != nil {
		return itself(answer, e, r)
	}
	var weight uint32
	for _, b := range e.GetPool() {
		target, ok, err := target(e, b, r)
		if err != nil {
			return err
		}
		if !ok {
			answer.Status, answer.Backends = http.StatusBadRequest, nil
			answer.Settings = append(answer.Settings, "rewrite: it makes no valid path of this one")
			return nil
		}
		host := r.Host
		if e.GetReplaceHost() || host == "" {
			host = authority(b.GetUrl())
		}
		weight += b.GetWeight()
		answer.Backends = append(answer.Backends, &fleetv1.BackendRequest{
			Url: b.GetUrl(), Weight: b.GetWeight(), RequestLine: r.Method + " " + target + " HTTP/1.1", Host: host,
		})
	}
	if weight == 0 {
		answer.Status = http.StatusServiceUnavailable
	}
	return nil
}

// authority returns host and port of a pool URL as they are written.
func authority(url string) string {
	_, rest, _ := strings.Cut(url, "://")
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		rest = rest[:i]
	}
	return rest
}

// mismatches says why the endpoints but the one that takes the request do not:
// first those that would take it if there were no better one, then those with
// the right path, then the others, by name.
func mismatches(rt *routetablev1.RouteTable, taken *routetablev1.Endpoint, r *routetable.Request) ([]*fleetv1.Mismatch, uint32) {
	var near, path, far []*fleetv1.Mismatch
	for _, e := range rt.GetEndpoints() {
		if e == taken {
			continue
		}
		reason := routetable.Mismatch(e, r)
		switch {
		case reason == "":
			near = append(near, &fleetv1.Mismatch{Endpoint: e.GetName(), Reason: fmt.Sprintf("matches too, but %s is more specific", taken.GetName())})
		case routetable.Mismatch(&routetablev1.Endpoint{Path: e.GetPath()}, r) == "":
			path = append(path, &fleetv1.Mismatch{Endpoint: e.GetName(), Reason: reason})
		default:
			if len(far) < maxMismatches {
				far = append(far, &fleetv1.Mismatch{Endpoint: e.GetName(), Reason: reason})
			}
		}
	}
	list := slices.Concat(near, path, far)
	list = list[:min(len(list), maxMismatches)]
	others := len(rt.GetEndpoints())
	if taken != nil {
		others--
	}
	return list, uint32(others - len(list))
}
