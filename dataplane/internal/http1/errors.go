package http1

// Error is a message that must not be forwarded. Prepared values only: no error
// is allocated while parsing, and every parse of the same bytes gives the same
// pointer.
type Error struct {
	Status int    // what to answer when a client sent it: 400, 414, 431, 501, 505; a backend's is a 502
	Reason string // for logs and the answer's body; constant text, never message bytes
}

// Error returns the reason.
func (e *Error) Error() string { return e.Reason }

func bad(reason string) *Error { return &Error{Status: 400, Reason: reason} }

// Lines (RFC 9112 sections 2.2 and 5).
var (
	errBareLF           = bad("line feed without carriage return")
	errBareCR           = bad("carriage return without line feed")
	errFieldName        = bad("invalid field name")
	errEmptyName        = bad("empty field name")
	errNoColon          = bad("field line without a colon")
	errSpaceBeforeColon = bad("white space in or after a field name")
	errSpaceBeforeField = bad("white space before the first field line")
	errFolded           = bad("folded field line")
	errControl          = bad("control character in a field value")
	errHeadTooLarge     = &Error{Status: 431, Reason: "head too large"}
	errTooManyFields    = &Error{Status: 431, Reason: "too many fields"}
)

// Start lines (RFC 9112 sections 2.3, 3 and 4).
var (
	errMethod        = bad("invalid method")
	errTarget        = bad("invalid request target")
	errTargetForm    = bad("request target does not suit the method")
	errTargetScheme  = bad("request target with a scheme other than http")
	errTargetHost    = bad("invalid authority in the request target")
	errTargetTooLong = &Error{Status: 414, Reason: "request target too long"}
	errVersion       = bad("invalid protocol version")
	errMajorVersion  = &Error{Status: 505, Reason: "unsupported protocol version"}
	errStatusLine    = bad("invalid status line")
)

// Fields with a meaning for framing and routing (RFC 9112 sections 3.2 and 6).
var (
	errNoHost              = bad("missing Host")
	errHostTwice           = bad("more than one Host")
	errHost                = bad("invalid Host")
	errContentLengthTwice  = bad("more than one Content-Length")
	errContentLength       = bad("invalid Content-Length")
	errTwoFramings         = bad("both Content-Length and Transfer-Encoding")
	errEncodingTwice       = bad("more than one Transfer-Encoding")
	errEncoding            = bad("invalid Transfer-Encoding")
	errUnknownEncoding     = &Error{Status: 501, Reason: "unknown transfer coding"}
	errEncodingIn10        = bad("Transfer-Encoding in an HTTP/1.0 message")
	errFramingWithoutBody  = bad("body announced where none is allowed")
	errMaxForwards         = bad("invalid Max-Forwards")
	errTooManyConnectionOp = bad("too many connection options")
)

// Chunked bodies (RFC 9112 section 7.1).
var (
	errChunkSize       = bad("invalid chunk size")
	errChunkExtension  = bad("invalid chunk extension")
	errExtensionsLarge = bad("chunk extensions too large")
	errChunkEnd        = bad("chunk longer than its size")
	errTrailersLarge   = bad("trailers too large")
	errTrailerName     = bad("field not allowed in trailers")
)
