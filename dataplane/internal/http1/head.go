package http1

// Span is a range of bytes of the buffer a head was parsed from.
type Span struct{ Start, End uint32 }

func span(start, end int) Span { return Span{uint32(start), uint32(end)} }

// Of returns the bytes of the span.
func (s Span) Of(p []byte) []byte { return p[s.Start:s.End] }

// Len returns the number of bytes.
func (s Span) Len() int { return int(s.End - s.Start) }

// Field is one field line of a head.
type Field struct {
	Line  Span // the whole line with its CRLF
	Name  Span
	Value Span // without the white space around it
	ID    Name
	// Hop is set for fields that end at this hop: hop-by-hop fields and those
	// named by Connection (RFC 9110 section 7.6.1). Host, Content-Length,
	// Transfer-Encoding and Expect never become Hop by being named there. In a
	// request it is also set for known names that are spelled with "_" for "-".
	// The package comment has the list.
	Hop bool
}

// Framing is how the end of a message body is found (RFC 9112 section 6.3).
type Framing uint8

// The framings.
const (
	NoBody     Framing = iota
	Length             // Content-Length bytes
	Chunked            // chunked transfer coding
	UntilClose         // the rest of the connection; responses only
)

// Head is what request and response heads have in common. Spans refer to Raw.
type Head struct {
	// Raw is the head from its start line to its empty line. It aliases the
	// parser's input and does not include empty lines before the start line.
	Raw    []byte
	Fields []Field // backing array is reused by the next Parse
	Minor  uint8   // HTTP/1.Minor: 0 or 1
	// Framing and Length describe the body; Length is 0 unless Framing is Length.
	Framing Framing
	Length  int64
	// Close: the sender will not, or must not, keep the connection (RFC 9112
	// section 9.3).
	Close bool
	// Upgrade: Connection names upgrade and there is an Upgrade field. Never in
	// HTTP/1.0 (RFC 9110 section 7.8).
	Upgrade bool

	seen nameSet // the known names among Fields
}

// Get returns the value of the first field with a known name.
func (h *Head) Get(id Name) (Span, bool) {
	if h.seen.has(id) {
		for i := range h.Fields {
			if h.Fields[i].ID == id {
				return h.Fields[i].Value, true
			}
		}
	}
	return Span{}, false
}

// Only returns the value of the field with a known name when there is one such line
// and it does not end at this hop. Peers differ in which of several they read.
func (h *Head) Only(id Name) (value Span, ok bool) {
	if !h.seen.has(id) {
		return Span{}, false
	}
	for i := range h.Fields {
		f := &h.Fields[i]
		if f.ID != id {
			continue
		}
		if ok || f.Hop {
			return Span{}, false
		}
		value, ok = f.Value, true
	}
	return value, ok
}

// Value returns the value of the first field line called name (lower case).
func (h *Head) Value(name string) (Span, bool) {
	for i := range h.Fields {
		f := &h.Fields[i]
		if f.Name.Len() == len(name) && foldEqual(f.Name.Of(h.Raw), name) {
			return f.Value, true
		}
	}
	return Span{}, false
}

// Has reports whether a value is this one (lower case) in any letter case.
func (h *Head) Has(value Span, lower string) bool { return foldEqual(value.Of(h.Raw), lower) }

// Drop makes the fields of these names (lower case) end at this hop, also those that
// are spelled with "_" for "-": backends that turn names into CGI variables read both as
// one.
func (h *Head) Drop(names []string) {
	for i := range h.Fields {
		f := &h.Fields[i]
		for _, name := range names {
			if f.Name.Len() == len(name) && sameVariable(f.Name.Of(h.Raw), name) {
				f.Hop = true
			}
		}
	}
}

// sameVariable reports whether two names of one length, the second in lower case, are
// the same CGI variable (RFC 3875 section 4.1.18).
func sameVariable(name []byte, lower string) bool {
	dash := func(c byte) byte {
		if c == '_' {
			return '-'
		}
		return c
	}
	for i, c := range name {
		if dash(lowerCase(c)) != dash(lower[i]) {
			return false
		}
	}
	return true
}

// HasValue reports whether one of the field lines called name (lower case) has
// exactly this value, not counting the white space around it.
func (h *Head) HasValue(name, value string) bool {
	for i := range h.Fields {
		f := &h.Fields[i]
		if f.Name.Len() == len(name) && f.Value.Len() == len(value) &&
			foldEqual(f.Name.Of(h.Raw), name) && string(f.Value.Of(h.Raw)) == value {
			return true
		}
	}
	return false
}

// Limits bound a head. A zero is "no limit", which for HeadBytes means 1 GiB.
type Limits struct {
	HeadBytes   int // request line or status line and fields, with the empty lines before and after
	Fields      int
	TargetBytes int
}

// maxHeadBytes keeps spans in range.
const maxHeadBytes = 1 << 30

// clip returns what of p may belong to a head, and whether more bytes than that
// would be too many.
func (l Limits) clip(p []byte) (_ []byte, full bool) {
	limit := maxHeadBytes
	if l.HeadBytes > 0 && l.HeadBytes < limit {
		limit = l.HeadBytes
	}
	if len(p) < limit {
		return p, false
	}
	return p[:limit], true
}

// step is where in a head a scan is.
type step uint8

const (
	atStart   step = iota
	inMethod       // request line
	inTarget       //
	inVersion      //
	inStatus       // status line: version and status
	inReason       //
	atField        // at the start of a field line or of the empty line
	inName         //
	inValue        //
)

// Scan remembers how far an incomplete head has been searched, so that a head
// that comes byte by byte costs linear time. Zero it for each new head; a Parse
// that returns a head does so itself. It holds no bytes: the buffer may move and
// the Request or Response may serve other connections between two calls.
type Scan struct {
	step   step
	minor  uint8
	skip   uint32 // empty lines before the start line; the others count from there
	pos    uint32 // all before it is known to be valid
	line   uint32 // start of the field line
	mark   uint32 // end of the method, or of the field name
	fields uint32
	seen   nameSet
}

// stop records that the bytes end at i, within a step.
func (s *Scan) stop(at step, i int) {
	s.step, s.pos = at, uint32(i)
}

// fieldLines reads field lines up to the empty line and returns where it ends, or
// 0 when more bytes are needed.
func (h *Head) fieldLines(q []byte, s *Scan, lim Limits, request bool) (end int, err *Error) {
	i := int(s.pos)
	at := s.step
	for {
		if at == atField {
			if i == len(q) {
				s.stop(atField, i)
				return 0, nil
			}
			if class[q[i]]&isToken == 0 {
				return h.noField(q, s, i)
			}
			if lim.Fields > 0 && int(s.fields) >= lim.Fields {
				return 0, errTooManyFields
			}
			s.line = uint32(i)
		}
		if at <= inName {
			i = skipClass(q, i, isToken)
			if i == len(q) {
				s.stop(inName, i)
				return 0, nil
			}
			if q[i] != ':' {
				return 0, nameError(q[i])
			}
			s.mark = uint32(i)
			i++
		}
		i = indexControl(q, i)
		for i < len(q) && q[i] == '\t' {
			i = indexControl(q, i+1)
		}
		if i+1 >= len(q) {
			if i < len(q) && q[i] != '\r' {
				return 0, valueError(q[i])
			}
			s.stop(inValue, i)
			return 0, nil
		}
		if q[i] != '\r' || q[i+1] != '\n' {
			return 0, valueError(q[i])
		}
		if err := h.add(q, s, i, request); err != nil {
			return 0, err
		}
		i += 2
		at = atField
	}
}

// noField reads what is not the start of a field line: the empty line, or an
// error.
func (h *Head) noField(q []byte, s *Scan, i int) (end int, err *Error) {
	switch q[i] {
	case '\r':
		if i+1 == len(q) {
			s.stop(atField, i)
			return 0, nil
		}
		if q[i+1] != '\n' {
			return 0, errBareCR
		}
		return i + 2, nil
	case ' ', '\t':
		if s.fields == 0 {
			return 0, errSpaceBeforeField // RFC 9112 section 2.2
		}
		return 0, errFolded // RFC 9112 section 5.2
	case ':':
		return 0, errEmptyName
	default:
		return 0, nameError(q[i])
	}
}

// nameError tells why c cannot be part of a field name (RFC 9112 section 5.1).
func nameError(c byte) *Error {
	switch c {
	case '\n':
		return errBareLF
	case '\r':
		return errNoColon
	case ' ', '\t':
		return errSpaceBeforeColon
	default:
		return errFieldName
	}
}

// valueError tells why c cannot be part of a field value or a reason phrase.
func valueError(c byte) *Error {
	switch c {
	case '\n':
		return errBareLF
	case '\r':
		return errBareCR
	default:
		return errControl
	}
}

// add records the field line that ends with the CRLF at cr.
func (h *Head) add(q []byte, s *Scan, cr int, request bool) *Error {
	name := Span{s.line, s.mark}
	value := trim(q, int(s.mark)+1, cr)
	id := lookupName(name.Of(q))
	s.fields++
	h.Fields = append(h.Fields, Field{
		Line:  span(int(s.line), cr+2),
		Name:  name,
		Value: value,
		ID:    id,
		Hop:   hopNames.has(id),
	})
	if id == OtherName {
		if request && disguised(name.Of(q)) {
			h.Fields[len(h.Fields)-1].Hop = true
		}
		return nil
	}
	before := s.seen
	s.seen |= 1 << id
	switch id {
	case Host:
		if request {
			return checkHost(value.Of(q), before)
		}
	case ContentLength:
		return h.contentLength(value.Of(q), before)
	case TransferEncoding:
		return transferEncoding(value.Of(q), before, s.minor)
	}
	return nil
}

// checkHost checks a request's Host (RFC 9112 section 3.2). An empty one is
// refused because an http URI has a host (RFC 9110 section 4.2.1).
func checkHost(value []byte, before nameSet) *Error {
	if before.has(Host) {
		return errHostTwice
	}
	if ok, _ := validAuthority(value); !ok {
		return errHost
	}
	return nil
}

// contentLength reads Content-Length: 1*DIGIT (RFC 9110 section 8.6), once, and
// not beside Transfer-Encoding (RFC 9112 section 6.3).
func (h *Head) contentLength(value []byte, before nameSet) *Error {
	if before.has(ContentLength) {
		return errContentLengthTwice
	}
	if before.has(TransferEncoding) {
		return errTwoFramings
	}
	n, overflow, ok := parseDecimal(value)
	if !ok || overflow {
		return errContentLength
	}
	h.Length = n
	return nil
}

// transferEncoding accepts nothing but "chunked" (RFC 9112 sections 6.1 and 6.3).
func transferEncoding(value []byte, before nameSet, minor uint8) *Error {
	if before.has(TransferEncoding) {
		return errEncodingTwice
	}
	if before.has(ContentLength) {
		return errTwoFramings
	}
	if minor == 0 {
		return errEncodingIn10
	}
	if !foldEqual(value, "chunked") {
		return encodingError(value)
	}
	return nil
}

// encodingError tells codings that are not implemented (501, RFC 9112 section
// 6.1) from those that hide where the body ends: chunked must be the last one
// (400, section 6.3) and applied once (section 6.1), and has no parameters
// (section 7.1). A list that is not made of plain tokens is refused as well.
// Without chunked both sections apply; the connection ends either way, and 501
// tells the client more.
func encodingError(value []byte) *Error {
	for {
		coding, rest, more := cutComma(value)
		if len(coding) == 0 || skipClass(coding, 0, isToken) != len(coding) {
			return errEncoding
		}
		chunked := foldEqual(coding, "chunked")
		if !more {
			return errUnknownEncoding
		}
		if chunked {
			return errEncoding
		}
		value = rest
	}
}

// setFraming sets the framing that the fields ask for; absent is the framing of
// a message without such fields.
func (h *Head) setFraming(absent Framing) {
	switch {
	case h.seen.has(TransferEncoding):
		h.Framing = Chunked
	case h.seen.has(ContentLength):
		h.Framing = Length
	default:
		h.Framing = absent
	}
}
