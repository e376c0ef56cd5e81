// Package routetable says what a route table means. Both planes share it: the
// canonical form and its version, the rules a table must keep, and the plain
// matcher that defines which endpoint takes a request. The data plane's fast
// matcher is tested against this one; the command line explains with it.
//
// Everything here is pure: no sockets, files, clocks or loggers. Nothing is
// retained, and no function changes a table it is given.
package routetable

import (
	"errors"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

// Version returns the SHA-256 of the table's canonical form in lower-case
// hexadecimal. Equal content has an equal version in every process and every
// release: the canonical form is our own (protobuf bytes are not stable) and
// leaves out fields that have their default value, so that a field added later
// changes only the tables that use it.
func Version(t *routetablev1.RouteTable) string { panic("not yet") }

// Problem is one broken rule of a wire table.
type Problem struct {
	Path    string // such as endpoints[3].pool[0].url
	Message string
}

// Error formats the problem as "path: message".
func (p *Problem) Error() string { return p.Path + ": " + p.Message }

// Validate checks every rule of the wire form and returns all broken ones, as
// *Problem values joined by errors.Join. Fields unknown to this release are
// problems too: a table that needs them would be served wrongly.
func Validate(t *routetablev1.RouteTable) error { panic("not yet") }

// Request is what matching looks at.
type Request struct {
	Method string
	Host   string // as the client sent it; may have a port; may be empty
	Path   string // raw path of the request target, without the query
	Query  string // raw query without the question mark
	// HasQuery tells "/a?" from "/a".
	HasQuery bool
	// Header returns the values of a field, one per field line, by lower-case name.
	Header func(name string) []string
}

// ErrPath is returned for a path that is not a valid absolute path or that
// climbs above the root.
var ErrPath = errors.New("invalid path")

// NormalizePath returns the form in which paths are compared: percent-encoded
// unreserved characters decoded, other escapes in upper case (RFC 3986 section
// 6.2.2), dot segments removed (section 5.2.4, also when the dots are
// percent-encoded). %2F stays distinct from a slash. A path that leaves the
// root is an error, not clamped: no client means it.
func NormalizePath(raw string) (string, error) { panic("not yet") }

// Match returns the endpoint that takes the request, by a linear scan. When
// there is none, allow holds the methods with which one would (sorted), which
// makes the answer 405 instead of 404.
func Match(t *routetablev1.RouteTable, r *Request) (e *routetablev1.Endpoint, allow []string, err error) {
	panic("not yet")
}

// Mismatch says, for people, why the endpoint does not match the request, or ""
// when it does.
func Mismatch(e *routetablev1.Endpoint, r *Request) string { panic("not yet") }

// Target returns the request target (path and query) that a backend of the
// endpoint is sent, by the rules of the configuration contract: a pool URL
// without a path passes the raw path unchanged; one with a path replaces the
// whole path (exact) or the matched prefix (prefix), the remainder appended by
// exactly one slash, byte for byte; the pool URL's query comes first.
func Target(e *routetablev1.Endpoint, b *routetablev1.Backend, r *Request) (string, error) {
	panic("not yet")
}
