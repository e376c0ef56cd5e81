package http1

import (
	"bytes"
	"math"
)

// TargetForm is the form of a request target (RFC 9112 section 3.2).
type TargetForm uint8

// The forms.
const (
	OriginForm    TargetForm = iota
	AbsoluteForm             // http://host/path
	AuthorityForm            // CONNECT host:port
	AsteriskForm             // OPTIONS *
)

// Method is a method this package knows; OtherMethod is any other valid token.
type Method uint8

// The methods of RFC 9110 section 9 and PATCH (RFC 5789).
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
	// there is one, which then replaces Host (RFC 9112 section 3.2.2), else of
	// the Host field; empty for HTTP/1.0 without Host.
	Authority Span
	// ExpectContinue: the client waits for a 100 before it sends the body.
	// Never in HTTP/1.0 (RFC 9110 section 10.1.1).
	ExpectContinue bool
	// ExpectOther: there is an expectation that is not 100-continue. A server may
	// answer 417 (RFC 9110 section 10.1.1).
	ExpectOther bool
	TETrailers  bool // TE allows trailers (RFC 9110 section 10.1.4)
	// MaxForwards of an OPTIONS or TRACE (RFC 9110 section 7.6.2); -1 when absent
	// and for other methods, which ignore it. A number that does not fit is the
	// largest that does.
	MaxForwards int64
}

// Parse reads a request head from the start of p. It returns the length of the
// head with its empty line, or 0 when more bytes are needed, or an error as soon
// as the bytes so far cannot become a valid head within the limits. Empty lines
// before the request line are skipped (RFC 9112 section 2.2) and counted in n.
// The fields of r are valid only when n > 0.
func (r *Request) Parse(p []byte, s *Scan, lim Limits) (n int, err *Error) {
	p, full := lim.clip(p)
	resumed := s.step != atStart
	end, err := r.read(p, s, lim)
	if end > 0 && resumed {
		// The reading in pieces has kept nothing of the head but that its lines
		// are valid.
		*s = Scan{}
		end, err = r.read(p, s, lim)
	}
	if err != nil {
		return 0, err
	}
	if end > 0 {
		n = int(s.skip) + end
		err = r.finish(p[s.skip:n], s)
		*s = Scan{}
		if err != nil {
			return 0, err
		}
		return n, nil
	}
	if full {
		if s.step == inTarget {
			return 0, errTargetTooLong
		}
		return 0, errHeadTooLarge
	}
	return 0, nil
}

// read goes on from s and returns the end of the head, counted from the request
// line, or 0 when more bytes are needed.
func (r *Request) read(p []byte, s *Scan, lim Limits) (end int, err *Error) {
	if s.step == atStart {
		if err := s.emptyLines(p); err != nil || s.step == atStart {
			return 0, err
		}
	}
	q := p[s.skip:]
	*r = Request{Head: Head{Fields: r.Fields[:0]}, MaxForwards: -1}
	if s.step < atField {
		if err := r.requestLine(q, s, lim); err != nil || s.step < atField {
			return 0, err
		}
	}
	return r.fieldLines(q, s, lim, true)
}

// emptyLines skips the empty lines before the request line (RFC 9112 section
// 2.2).
func (s *Scan) emptyLines(p []byte) *Error {
	for i := int(s.skip); i < len(p); i += 2 {
		switch p[i] {
		case '\r':
			if i+1 == len(p) {
				return nil
			}
			if p[i+1] != '\n' {
				return errBareCR
			}
			s.skip = uint32(i + 2)
		case '\n':
			return errBareLF
		default:
			s.step = inMethod
			return nil
		}
	}
	return nil
}

// requestLine reads method SP request-target SP HTTP-version CRLF (RFC 9112
// section 3).
func (r *Request) requestLine(q []byte, s *Scan, lim Limits) *Error {
	i := int(s.pos)
	if s.step == inMethod {
		i = skipClass(q, i, isToken)
		if i == len(q) {
			s.stop(inMethod, i)
			return nil
		}
		if q[i] != ' ' || i == 0 {
			return startLineError(q[i], errMethod)
		}
		s.mark = uint32(i)
		i++
		s.step = inTarget
	}
	if s.step == inTarget {
		i = indexNotTarget(q, i)
		target := span(int(s.mark)+1, i)
		if lim.TargetBytes > 0 && target.Len() > lim.TargetBytes {
			return errTargetTooLong
		}
		if i == len(q) {
			s.stop(inTarget, i)
			return nil
		}
		if q[i] != ' ' {
			return startLineError(q[i], errTarget)
		}
		r.MethodText = Span{0, s.mark}
		r.Method = lookupMethod(r.MethodText.Of(q))
		r.Target = target
		if err := r.splitTarget(q); err != nil {
			return err
		}
		i++
	}
	// A version that is not complete is read again from its start.
	end, minor, err := requestVersion(q[i:])
	if err != nil {
		return err
	}
	if end == 0 {
		s.stop(inVersion, i)
		return nil
	}
	s.minor = minor
	s.stop(atField, i+end)
	return nil
}

// startLineError prefers the name of a wrong line end over other.
func startLineError(c byte, other *Error) *Error {
	if c == '\n' {
		return errBareLF
	}
	return other
}

// requestVersion reads HTTP-version CRLF (RFC 9112 section 2.3); end is 0 when
// more bytes are needed. A minor version above 1 is read as 1 (RFC 9110 section
// 2.5).
func requestVersion(v []byte) (end int, minor uint8, err *Error) {
	const form = "HTTP/1.1\r\n"
	if len(v) >= len(form) && string(v[:len(form)]) == form {
		return len(form), 1, nil
	}
	minor = 1
	for i := range min(len(v), len(form)) {
		c := v[i]
		switch {
		case i == 5 && c != '1' && class[c]&isDigit != 0:
			return 0, 0, errMajorVersion
		case i == 7 && class[c]&isDigit != 0:
			minor = min(c-'0', 1)
		case c != form[i]:
			if i == 9 {
				return 0, 0, errBareCR
			}
			return 0, 0, startLineError(c, errVersion)
		}
	}
	if len(v) < len(form) {
		return 0, 0, nil
	}
	return len(form), minor, nil
}

// lookupMethod returns the method; names of methods are case-sensitive.
func lookupMethod(m []byte) Method {
	switch string(m) {
	case "GET":
		return GET
	case "HEAD":
		return HEAD
	case "POST":
		return POST
	case "PUT":
		return PUT
	case "DELETE":
		return DELETE
	case "OPTIONS":
		return OPTIONS
	case "PATCH":
		return PATCH
	case "CONNECT":
		return CONNECT
	case "TRACE":
		return TRACE
	default:
		return OtherMethod
	}
}

// splitTarget reads the request target, whose bytes are valid (RFC 9112 section
// 3.2).
func (r *Request) splitTarget(q []byte) *Error {
	t := r.Target.Of(q)
	switch {
	case len(t) == 0:
		return errTarget
	case r.Method == CONNECT:
		// A port is required (RFC 9110 section 9.3.6).
		if ok, port := validAuthority(t); !ok || !port {
			return errTargetHost
		}
		r.Form = AuthorityForm
		r.Authority = r.Target
		return nil
	case t[0] == '/':
		r.splitQuery(q, r.Target.Start)
		return nil
	case len(t) == 1 && t[0] == '*':
		if r.Method != OPTIONS {
			return errTargetForm
		}
		r.Form = AsteriskForm
		return nil
	}
	const scheme = "http://"
	if len(t) < len(scheme) || !foldEqual(t[:len(scheme)], scheme) {
		if bytes.Contains(t, []byte("://")) {
			return errTargetScheme
		}
		return errTarget
	}
	r.Form = AbsoluteForm
	start := len(scheme)
	end := start
	for end < len(t) && t[end] != '/' && t[end] != '?' {
		end++
	}
	if ok, _ := validAuthority(t[start:end]); !ok {
		return errTargetHost
	}
	r.Authority = Span{r.Target.Start + uint32(start), r.Target.Start + uint32(end)}
	r.splitQuery(q, r.Authority.End)
	return nil
}

// splitQuery sets Path and Query of a target whose path starts at start.
func (r *Request) splitQuery(q []byte, start uint32) {
	r.Path = Span{start, r.Target.End}
	if i := bytes.IndexByte(r.Path.Of(q), '?'); i >= 0 {
		r.Path.End = start + uint32(i)
		r.Query = Span{r.Path.End + 1, r.Target.End}
		r.HasQuery = true
	}
}

// finish checks and sets what depends on the whole head.
func (r *Request) finish(raw []byte, s *Scan) *Error {
	r.Raw, r.Minor, r.seen = raw, s.minor, s.seen
	if r.Minor > 0 && !r.seen.has(Host) {
		return errNoHost // RFC 9112 section 3.2
	}
	if r.Form == OriginForm || r.Form == AsteriskForm {
		r.Authority, _ = r.Get(Host)
	}
	r.setFraming(NoBody)
	if err := r.connection(); err != nil {
		return err
	}
	if r.seen&requestNames == 0 {
		return nil
	}
	return r.requestFields()
}

// requestNames are the fields of requestFields.
var requestNames = setOf(Expect, TE, MaxForwards)

// requestFields reads the fields that tell intermediaries what to do.
func (r *Request) requestFields() *Error {
	for i := range r.Fields {
		value := r.Fields[i].Value.Of(r.Raw)
		switch r.Fields[i].ID {
		case Expect:
			r.expect(value)
		case TE:
			r.TETrailers = r.TETrailers || r.Minor > 0 && listHas(value, "trailers")
		case MaxForwards:
			if r.Method != OPTIONS && r.Method != TRACE {
				continue
			}
			n, overflow, ok := parseDecimal(value)
			if !ok || r.MaxForwards >= 0 {
				return errMaxForwards
			}
			if overflow {
				n = math.MaxInt64
			}
			r.MaxForwards = n
		}
	}
	return nil
}

// expect reads Expect (RFC 9110 section 10.1.1).
func (r *Request) expect(list []byte) {
	for more := true; more; {
		var e []byte
		switch e, list, more = cutComma(list); {
		case len(e) == 0:
		case foldEqual(e, "100-continue"):
			r.ExpectContinue = r.Minor > 0
		default:
			r.ExpectOther = true
		}
	}
}

// listHas reports whether a list has the element (lower case).
func listHas(list []byte, element string) bool {
	for more := true; more; {
		var e []byte
		if e, list, more = cutComma(list); foldEqual(e, element) {
			return true
		}
	}
	return false
}
