// Package http1 parses HTTP/1.x messages as an intermediary must (RFC 9110, RFC
// 9112): strictly, in place, without allocating. Bytes in, spans and body
// progress out; it does no I/O. The request path (package proxy) calls it.
//
// A value is used by one goroutine at a time.
package http1

// Span is a range of bytes of the buffer a head was parsed from.
type Span struct{ Start, End uint32 }

// Of returns the bytes of the span.
func (s Span) Of(p []byte) []byte { return p[s.Start:s.End] }

// Len returns the number of bytes.
func (s Span) Len() int { return int(s.End - s.Start) }

// Name is a field name this package knows; OtherName is any other.
type Name uint8

// The field names that a proxy has to do something about.
const (
	OtherName Name = iota
	Host
	ContentLength
	TransferEncoding
	Connection
	KeepAlive
	ProxyConnection
	ProxyAuthenticate
	ProxyAuthorization
	TE
	Trailer
	Upgrade
	Expect
	Via
	Forwarded
	XForwardedFor
	XForwardedProto
	XForwardedHost
	MaxForwards
	Date
	Server
)

// Field is one field line of a head.
type Field struct {
	Line  Span // the whole line with its CRLF
	Name  Span
	Value Span // without the white space around it
	ID    Name
	// Hop is set for fields that end at this hop: hop-by-hop fields and those
	// named by Connection (RFC 9110 section 7.6.1). Host, Content-Length and
	// Transfer-Encoding never become Hop by being named there.
	Hop bool
}

// Framing is how the end of a message body is found (RFC 9112 section 6.3).
type Framing uint8

const (
	NoBody     Framing = iota
	Length             // Content-Length bytes
	Chunked            // chunked transfer coding
	UntilClose         // the rest of the connection; responses only
)

// Head is what request and response heads have in common. Spans refer to Raw.
type Head struct {
	Raw    []byte  // the head with its empty line; aliases the parser's input
	Fields []Field // backing array is reused by the next Parse
	Minor  uint8   // HTTP/1.Minor: 0 or 1
	// Framing and Length describe the body; Length is 0 unless Framing is Length.
	Framing Framing
	Length  int64
	// Close: the sender will not, or must not, keep the connection.
	Close bool
	// Upgrade: Connection names upgrade and there is an Upgrade field.
	Upgrade bool
}

// TargetForm is the form of a request target (RFC 9112 section 3.2).
type TargetForm uint8

const (
	OriginForm    TargetForm = iota
	AbsoluteForm             // http://host/path
	AuthorityForm            // CONNECT host:port
	AsteriskForm             // OPTIONS *
)

// Method is a method this package knows; OtherMethod is any other valid token.
type Method uint8

const (
	OtherMethod Method = iota
	GET
	HEAD
	POST
	PUT
	DELETE
	OPTIONS
	PATCH
	CONNECT
	TRACE
)

// Request is a parsed request head.
type Request struct {
	Head
	Method     Method
	MethodText Span
	Target     Span
	Form       TargetForm
	Path       Span // "/" or longer; empty for "*" and authority-form and for "http://host" without a path
	Query      Span // without the "?"
	HasQuery   bool
	// Authority is the effective host[:port]: of an absolute-form target when
	// there is one, else of the Host field; empty for HTTP/1.0 without Host.
	Authority      Span
	ExpectContinue bool
	TETrailers     bool  // TE allows trailers
	MaxForwards    int64 // -1 when absent
}

// Response is a parsed response head.
type Response struct {
	Head
	Status int
	Reason Span
}

// Limits bound a head. A zero is "no limit".
type Limits struct {
	HeadBytes   int // request line or status line and fields
	Fields      int
	TargetBytes int
}

// Error is a message that must not be forwarded. Prepared values only: no error
// is allocated while parsing.
type Error struct {
	Status int    // what to answer when a client sent it: 400, 414, 431, 501, 505
	Reason string // for logs and the answer's body; constant text, never message bytes
}

// Error returns the reason.
func (e *Error) Error() string { return e.Reason }

// Scan remembers how far an incomplete head has been searched, so that a head
// that comes byte by byte costs linear time. Zero it for each new head.
type Scan struct{ n int }

// Parse reads a request head from the start of p. It returns the length of the
// head with its empty line, or 0 when more bytes are needed, or an error as soon
// as the bytes so far cannot become a valid head within the limits. Empty lines
// before the request line are skipped (RFC 9112 section 2.2) and counted in n.
func (r *Request) Parse(p []byte, s *Scan, lim Limits) (n int, err *Error) { panic("not yet") }

// Parse reads a response head like Request.Parse. The method of the request
// decides about the body (RFC 9112 section 6.3).
func (r *Response) Parse(p []byte, s *Scan, lim Limits, request Method) (n int, err *Error) {
	panic("not yet")
}

// Body follows a message body through the bytes of a connection, verifying
// chunks, extensions and trailers as they pass.
type Body struct{ _ int }

// Start prepares for a body.
func (b *Body) Start(f Framing, length int64) { panic("not yet") }

// Advance returns how many bytes of p belong to the body. Once the body has
// ended, Done is true and the rest of p belongs to the next message.
func (b *Body) Advance(p []byte) (n int, err *Error) { panic("not yet") }

// Decode is Advance that also appends the payload of those bytes, freed from
// chunk framing and trailers, to dst.
func (b *Body) Decode(dst, p []byte) (out []byte, n int, err *Error) { panic("not yet") }

// Done reports whether the body has ended; at once for NoBody. It is never true
// for UntilClose.
func (b *Body) Done() bool { panic("not yet") }
