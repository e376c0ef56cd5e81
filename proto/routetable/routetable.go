// Package routetable says what a route table means. Both planes share it: the
// canonical form and its version, the rules a table must keep, and the plain
// matcher that defines which endpoint takes a request. The data plane's fast
// matcher is tested against this one; the command line explains with it. The
// rules of single values (paths, hosts, backend URLs, names …) are exported, so
// that the configuration loader and the data plane cannot disagree about them.
//
// Everything here is pure: no sockets, files, clocks or loggers. Nothing is
// retained, and no function changes a table it is given. All functions may be
// called from several goroutines.
package routetable

import (
	"strconv"
	"time"
)

// The ranges of what a table may hold. They are wide: they keep out what cannot
// be meant, not what is unwise.
const (
	MaxNameBytes   = 200
	MaxPathBytes   = 4096
	MaxMethodBytes = 64
	MaxCookieBytes = 256  // name
	MaxHeaderBytes = 4096 // name or value of a header field
	MaxEdits       = 64   // of the header fields of one kind of message
	MaxHostBytes   = 253  // the longest DNS name (RFC 1035 section 2.3.4)
	MaxURLBytes    = 4096
	MaxWeight      = 1000
	MaxSlots       = 100_000 // of a pool's schedule, see Schedule
	MaxTimeout     = 24 * time.Hour

	MinHeadBytes   = 256
	MaxHeadBytes   = 16 << 20
	MaxHeaderCount = 10_000
	MinURIBytes    = 16
	MaxURIBytes    = 16 << 20
	MaxConnections = 10_000_000

	MaxLogPathBytes  = 4095      // PATH_MAX of Linux, without the NUL
	SamplePerMillion = 1_000_000 // of an access log that leaves nothing out

	MaxRequests = 1_000_000 // in flight, of an endpoint or backend
	MaxQueue    = 1_000_000
	MaxRate     = 1_000_000 // requests of a rate, or its burst
)

// Stdout as the path of an access log is the standard output of the data plane.
const Stdout = "stdout"

// NoEndpoint is the name under which requests are counted that no endpoint
// takes; no endpoint may be called so.
const NoEndpoint = "none"

// text lets a rule be written once for the configuration's strings and the
// request path's bytes.
type text interface{ ~string | ~[]byte }

// quote shows a value in a message, shortened so that a message stays readable.
func quote[T text](v T) string {
	const most = 80
	if len(v) > most {
		return strconv.Quote(string(v[:most])) + "…"
	}
	return strconv.Quote(string(v))
}
