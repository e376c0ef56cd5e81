package routetable

import (
	"fmt"
	"slices"
	"strings"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

// Request is what matching looks at.
type Request struct {
	Method string
	Host   string // as the client sent it; may have a port; may be empty
	Path   string // raw path of the request target, without the query
	Query  string // raw query without the question mark
	// HasQuery tells "/a?" from "/a".
	HasQuery bool
	// Header returns the values of a field, one per field line, by lower-case
	// name. Nil: there are no fields.
	Header func(name string) []string
}

// hasValue reports whether one field line called name has exactly this value.
func (r *Request) hasValue(name, value string) bool {
	return r.Header != nil && slices.Contains(r.Header(name), value)
}

// target is the normal form of what identifies a request's resource.
type target struct{ host, path string }

// normalize returns the request's target. An empty path, as in the absolute form
// "http://host", means "/" (RFC 9112 section 3.2.1). The asterisk form concerns
// the server as a whole (section 3.2.4): it becomes the empty path, which no
// endpoint matches.
func (r *Request) normalize() (t target, err error) {
	t.host = NormalizeHost(r.Host)
	switch r.Path {
	case "":
		t.path = "/"
	case "*":
	default:
		t.path, err = NormalizePath(r.Path)
	}
	return t, err
}

// Match returns the endpoint that takes the request, by a linear scan. When
// there is none, allow holds the methods with which one would (sorted), which
// makes the answer 405 instead of 404. The only error is ErrPath.
//
// Of all endpoints that match, the best one takes the request: exact host before
// longer before shorter wildcard before any host; then exact path before longer
// before shorter prefix; then more before fewer conditions. Validate refuses
// tables with endpoints that tie, but a request with several field lines of one
// name can still fulfil conditions that seem to exclude each other: then the
// first endpoint by name takes it.
//
// A path of "*" matches no endpoint; an empty one is "/".
func Match(t *routetablev1.RouteTable, r *Request) (e *routetablev1.Endpoint, allow []string, err error) {
	target, err := r.normalize()
	if err != nil {
		return nil, nil, err
	}
	var best rank
	for _, candidate := range t.GetEndpoints() {
		k, ok := rankOf(candidate, target)
		if !ok || !fulfils(candidate, r) {
			continue
		}
		switch {
		case !takesMethod(candidate, r.Method):
			allow = append(allow, candidate.GetMethods()...)
		case e == nil || k.compare(best) > 0:
			e, best = candidate, k
		}
	}
	if e != nil {
		return e, nil, nil
	}
	slices.Sort(allow)
	return nil, slices.Compact(allow), nil
}

// rank orders the endpoints that match a request: by host, path, conditions.
type rank [3]int

const exactly = 1 << 30 // more than any suffix or prefix is long

func (k rank) compare(other rank) int { return slices.Compare(k[:], other[:]) }

// rankOf returns the rank of an endpoint whose host and path match.
func rankOf(e *routetablev1.Endpoint, t target) (k rank, ok bool) {
	if len(e.GetHosts()) > 0 {
		for _, pattern := range e.GetHosts() {
			if !matchHost(pattern, t.host) {
				continue
			}
			if suffix, wildcard := WildcardSuffix(pattern); wildcard {
				k[0] = max(k[0], len(suffix))
			} else {
				k[0] = exactly
			}
		}
		if k[0] == 0 {
			return k, false
		}
	}
	path, prefix := pathOf(e)
	switch {
	case !matchPath(path, prefix, t.path):
		return k, false
	case prefix:
		k[1] = len(path)
	default:
		k[1] = exactly
	}
	k[2] = conditions(e)
	return k, true
}

// pathOf returns an endpoint's path; an endpoint without one matches nothing.
func pathOf(e *routetablev1.Endpoint) (path string, prefix bool) {
	if p, ok := e.GetPath().(*routetablev1.Endpoint_Prefix); ok {
		return p.Prefix, true
	}
	return e.GetExact(), false
}

// matchPath reports whether a path in normal form is the endpoint's, or below
// its prefix by whole segments.
func matchPath(own string, prefix bool, path string) bool {
	if path == "" {
		return false
	}
	if rest, ok := strings.CutPrefix(path, own); ok && prefix {
		return rest == "" || rest[0] == '/'
	}
	return path == own
}

// conditions counts what an endpoint asks for beyond host and path.
func conditions(e *routetablev1.Endpoint) int {
	n := len(e.GetHeaders())
	if len(e.GetMethods()) > 0 {
		n++
	}
	return n
}

func takesMethod(e *routetablev1.Endpoint, method string) bool {
	return len(e.GetMethods()) == 0 || slices.Contains(e.GetMethods(), method)
}

// fulfils reports whether the request has all header fields that are asked for.
func fulfils(e *routetablev1.Endpoint, r *Request) bool {
	for _, m := range e.GetHeaders() {
		if !r.hasValue(m.GetName(), m.GetValue()) {
			return false
		}
	}
	return true
}

// Mismatch says, for people, why the endpoint does not match the request, or ""
// when it does. An endpoint that matches can still lose to a better one, see
// Match.
func Mismatch(e *routetablev1.Endpoint, r *Request) string {
	t, err := r.normalize()
	if err != nil {
		return fmt.Sprintf("the path %s is not valid", quote(r.Path))
	}
	if hosts := e.GetHosts(); len(hosts) > 0 &&
		!slices.ContainsFunc(hosts, func(p string) bool { return matchHost(p, t.host) }) {
		return fmt.Sprintf("host is %s, not %s", quote(t.host), strings.Join(hosts, " or "))
	}
	if path, prefix := pathOf(e); !matchPath(path, prefix, t.path) {
		shown := t.path
		if shown == "" {
			shown = r.Path
		}
		return fmt.Sprintf("path is %s, not %s", quote(shown), From(path, prefix))
	}
	if !takesMethod(e, r.Method) {
		return fmt.Sprintf("method is %s, not %s", quote(r.Method), strings.Join(e.GetMethods(), " or "))
	}
	for _, m := range e.GetHeaders() {
		if r.hasValue(m.GetName(), m.GetValue()) {
			continue
		}
		var values []string
		if r.Header != nil {
			values = r.Header(m.GetName())
		}
		if len(values) == 0 {
			return fmt.Sprintf("header %s is missing, must be %s", m.GetName(), quote(m.GetValue()))
		}
		return fmt.Sprintf("header %s is %s, not %s", m.GetName(), quote(strings.Join(values, ", ")), quote(m.GetValue()))
	}
	return ""
}

// Target returns the request target (path and query) that a backend of the
// endpoint is sent: what its rewrite makes of the path, if it has one, and then the
// rules of AppendTarget, by which the path of the backend's URL comes before a path
// that was rewritten. The endpoint must match the request. The error is ErrPath
// when the rewrite makes no valid path.
func Target(e *routetablev1.Endpoint, b *routetablev1.Backend, r *Request) (string, error) {
	u, err := ParseBackendURL(b.GetUrl())
	if err != nil {
		return "", err
	}
	t, err := r.normalize()
	if err != nil {
		return "", err
	}
	own, prefix := pathOf(e)
	exact, segments, path := !prefix, Segments(own), []byte(r.Path)
	rewrite, err := NewRewrite(e.GetRewrite(), prefix)
	if err != nil {
		return "", err
	}
	if rewrite != nil {
		if len(path) == 0 {
			path = slash
		}
		rewritten, ok := rewrite.Append(nil, path, []byte(t.path), segments)
		if !ok {
			return "", ErrPath
		}
		exact, segments, path = false, 0, rewritten
	}
	return string(AppendTarget(nil, u.Path(), u.Query(), exact, segments, path, []byte(r.Query), r.HasQuery)), nil
}
