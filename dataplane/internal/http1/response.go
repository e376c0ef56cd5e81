package http1

// Response is a parsed response head.
type Response struct {
	Head
	Status int // 100 to 999
	Reason Span
}

// Interim reports whether a final response follows this one: 1xx, but not 101,
// after which the connection speaks another protocol (RFC 9110 section 15.2).
func (r *Response) Interim() bool { return r.Status < 200 && r.Status != 101 }

// Parse reads a response head like Request.Parse, except that there are no empty
// lines to skip. The method of the request decides about the body (RFC 9112
// section 6.3).
func (r *Response) Parse(p []byte, s *Scan, lim Limits, request Method) (n int, err *Error) {
	p, full := lim.clip(p)
	resumed := s.step != atStart
	n, err = r.read(p, s, lim)
	if n > 0 && resumed {
		// As in Request.Parse.
		*s = Scan{}
		n, err = r.read(p, s, lim)
	}
	if err != nil {
		return 0, err
	}
	if n > 0 {
		err = r.finish(p[:n], s, request)
		*s = Scan{}
		if err != nil {
			return 0, err
		}
		return n, nil
	}
	if full {
		return 0, errHeadTooLarge
	}
	return 0, nil
}

// read goes on from s and returns the end of the head, or 0 when more bytes are
// needed.
func (r *Response) read(p []byte, s *Scan, lim Limits) (end int, err *Error) {
	if s.step == atStart {
		if len(p) == 0 {
			return 0, nil
		}
		s.step = inStatus
	}
	*r = Response{Head: Head{Fields: r.Fields[:0]}}
	if s.step < atField {
		if err := r.statusLine(p, s); err != nil || s.step < atField {
			return 0, err
		}
	}
	return r.fieldLines(p, s, lim, false)
}

// statusLine reads HTTP-version SP status-code SP [ reason-phrase ] CRLF (RFC 9112
// section 4). The second space may be absent when there is no reason.
func (r *Response) statusLine(q []byte, s *Scan) *Error {
	const form = "HTTP/1.1 200 "
	i := int(s.pos)
	if s.step == inStatus {
		for i := range min(len(q), len(form)) {
			c := q[i]
			var ok bool
			switch i {
			case 7:
				ok = c == '0' || c == '1'
			case 9:
				ok = class[c]&isDigit != 0 && c != '0'
			case 10, 11:
				ok = class[c]&isDigit != 0
			case 12:
				ok = c == ' ' || c == '\r'
			default:
				ok = c == form[i]
			}
			if !ok {
				return startLineError(c, errStatusLine)
			}
		}
		if len(q) < len(form) {
			return nil
		}
		s.minor = q[7] - '0'
		r.Status = int(q[9]-'0')*100 + int(q[10]-'0')*10 + int(q[11]-'0')
		i = len(form)
		if q[i-1] == '\r' {
			i--
		}
	}
	start := min(i, len(form))
	i = indexControl(q, i)
	for i < len(q) && q[i] == '\t' {
		i = indexControl(q, i+1)
	}
	if i+1 >= len(q) {
		if i < len(q) && q[i] != '\r' {
			return valueError(q[i])
		}
		s.stop(inReason, i)
		return nil
	}
	if q[i] != '\r' || q[i+1] != '\n' {
		return valueError(q[i])
	}
	r.Reason = span(start, i)
	s.stop(atField, i+2)
	return nil
}

// finish checks and sets what depends on the whole head.
func (r *Response) finish(raw []byte, s *Scan, request Method) *Error {
	r.Raw, r.Minor, r.seen = raw, s.minor, s.seen
	length := r.Length
	r.Length = 0
	switch {
	case r.Status < 200 || r.Status == 204:
		// RFC 9110 section 8.6 and RFC 9112 section 6.1 forbid both fields here. A
		// length of zero can be read one way only; anything else is a body to some
		// readers and the next message to others.
		if length != 0 || r.seen.has(TransferEncoding) {
			return errFramingWithoutBody
		}
		r.dropLength()
	case request == HEAD || r.Status == 304:
		// The fields describe the body that a GET would have (RFC 9110 section 8.6).
	case request == CONNECT && r.Status < 300:
		// A tunnel follows; the fields mean nothing (RFC 9110 section 9.3.6).
	default:
		r.setFraming(UntilClose)
		r.Length = length
	}
	if err := r.connection(); err != nil {
		return err
	}
	if r.Framing == UntilClose {
		r.Close = true
	}
	return nil
}

// dropLength marks Content-Length as not to be forwarded.
func (r *Response) dropLength() {
	if !r.seen.has(ContentLength) {
		return
	}
	for i := range r.Fields {
		if r.Fields[i].ID == ContentLength {
			r.Fields[i].Hop = true
		}
	}
}
