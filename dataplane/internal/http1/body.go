package http1

// What a chunked body may carry besides its payload, per body (RFC 9112 sections
// 7.1.1 and 7.1.2 ask for limits).
const (
	maxExtensionBytes = 16 << 10
	maxTrailerBytes   = 8 << 10
)

// maxSizeDigits keeps a chunk size below 1<<60.
const maxSizeDigits = 15

// Body follows a message body through the bytes of a connection, verifying
// chunks, extensions and trailers as they pass. The zero value has ended.
type Body struct {
	left  int64 // payload bytes to come: of the body, or of this chunk
	state bodyState
	// digits of the chunk size so far.
	digits uint8
	// nameLen counts the bytes of the trailer name; name holds the first of them
	// in lower case.
	nameLen uint8
	name    [maxForbiddenTrailer]byte
	// extensions and trailers count bytes against the limits above.
	extensions, trailers uint16
}

// bodyState is what the next byte belongs to.
//
//	chunkSize ─┬────────────────────────────────► sizeLF ─► chunkData ─► dataCR ─► dataLF ─► chunkSize
//	           └► extName… ─► extValue… ─► (CR) ──►  │ (size 0)
//	                                                 ▼
//	                                            trailerStart ─► trailerName ─► trailerValue ─► trailerLF ─► trailerStart
//	                                                 └► endLF ─► bodyDone
type bodyState uint8

const (
	bodyDone bodyState = iota
	bodyUntilClose
	bodyLength
	chunkData
	chunkSize
	extNameStart
	extName
	extValueStart
	extToken
	extQuoted
	extQuotedPair
	extQuotedEnd
	sizeLF
	dataCR
	dataLF
	trailerStart
	trailerName
	trailerValue
	trailerLF
	endLF
)

// Start prepares for a body. The length counts only for the framing Length.
func (b *Body) Start(f Framing, length int64) {
	*b = Body{}
	switch f {
	case Length:
		b.left = length
		if length > 0 {
			b.state = bodyLength
		}
	case Chunked:
		b.state = chunkSize
	case UntilClose:
		b.state = bodyUntilClose
	}
}

// Done reports whether the body has ended; at once for NoBody. It is never true
// for UntilClose.
func (b *Body) Done() bool { return b.state == bodyDone }

// Left returns how many bytes of a body with the framing Length are still to come;
// 0 for other bodies.
func (b *Body) Left() int64 {
	if b.state != bodyLength {
		return 0
	}
	return b.left
}

// Skip counts n bytes of the body, at most Left, that have passed elsewhere.
func (b *Body) Skip(n int64) {
	if b.left -= n; b.left == 0 {
		b.state = bodyDone
	}
}

// Advance returns how many bytes of p belong to the body. Once the body has
// ended, Done is true and the rest of p belongs to the next message. On an error
// n counts the valid bytes before it; the body cannot be followed any further.
func (b *Body) Advance(p []byte) (n int, err *Error) {
	for n < len(p) && b.state != bodyDone {
		k, _, err := b.segment(p[n:])
		n += k
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// Decode is Advance that also appends the payload of those bytes, freed from
// chunk framing and trailers, to dst. The payload is never longer than p, and dst
// may be p[:0].
func (b *Body) Decode(dst, p []byte) (out []byte, n int, err *Error) {
	for n < len(p) && b.state != bodyDone {
		k, payload, err := b.segment(p[n:])
		if payload {
			dst = append(dst, p[n:n+k]...)
		}
		n += k
		if err != nil {
			return dst, n, err
		}
	}
	return dst, n, nil
}

// segment takes bytes from the start of p, which is not empty: either payload, or
// framing up to the next payload.
func (b *Body) segment(p []byte) (n int, payload bool, err *Error) {
	switch b.state {
	case bodyUntilClose:
		return len(p), true, nil
	case bodyLength, chunkData:
		n := int(min(b.left, int64(len(p))))
		b.left -= int64(n)
		if b.left == 0 {
			if b.state == chunkData {
				b.state = dataCR
			} else {
				b.state = bodyDone
			}
		}
		return n, true, nil
	}
	for i, c := range p {
		if err := b.framing(c); err != nil {
			return i, false, err
		}
		if b.state == chunkData || b.state == bodyDone {
			return i + 1, false, nil
		}
	}
	return len(p), false, nil
}

// framing takes one byte that is not payload (RFC 9112 section 7.1).
func (b *Body) framing(c byte) *Error {
	switch b.state {
	case chunkSize:
		return b.size(c)
	case extNameStart, extName, extValueStart, extToken, extQuoted, extQuotedPair, extQuotedEnd:
		return b.extension(c)
	case sizeLF:
		if c != '\n' {
			return errBareCR
		}
		if b.left > 0 {
			b.state = chunkData
		} else {
			b.state = trailerStart
		}
	case dataCR:
		if c != '\r' {
			return errChunkEnd
		}
		b.state = dataLF
	case dataLF:
		if c != '\n' {
			return errBareCR
		}
		b.state, b.digits = chunkSize, 0
	default:
		return b.trailer(c)
	}
	return nil
}

// size takes a byte of chunk-size or the one that ends it. No white space may
// follow the size.
func (b *Body) size(c byte) *Error {
	if d := hexDigit(c); d >= 0 {
		if b.digits == maxSizeDigits {
			return errChunkSize
		}
		b.digits++
		b.left = b.left<<4 | int64(d)
		return nil
	}
	switch {
	case c == '\n':
		return errBareLF
	case b.digits == 0:
		return errChunkSize
	case c == '\r':
		b.state = sizeLF
	case c == ';':
		b.state = extNameStart
	default:
		return errChunkSize
	}
	return nil
}

// extension takes a byte of chunk-ext (RFC 9112 section 7.1.1): names and values
// without the white space that the grammar allows for history's sake only, since
// nobody sends it and readers that stop at it differ in what they make of the
// rest.
func (b *Body) extension(c byte) *Error {
	if c == '\n' {
		return errBareLF
	}
	if b.extensions++; b.extensions > maxExtensionBytes {
		return errExtensionsLarge
	}
	switch b.state {
	case extNameStart:
		if class[c]&isToken == 0 {
			return errChunkExtension
		}
		b.state = extName
	case extValueStart:
		switch {
		case c == '"':
			b.state = extQuoted
		case class[c]&isToken != 0:
			b.state = extToken
		default:
			return errChunkExtension
		}
	case extQuoted:
		switch {
		case c == '"':
			b.state = extQuotedEnd
		case c == '\\':
			b.state = extQuotedPair
		case class[c]&isQuoted == 0:
			return errChunkExtension
		}
	case extQuotedPair:
		if class[c]&isValue == 0 {
			return errChunkExtension
		}
		b.state = extQuoted
	default: // extName, extToken, extQuotedEnd: may end here
		switch {
		case c == '\r':
			b.state = sizeLF
		case c == ';':
			b.state = extNameStart
		case c == '=' && b.state == extName:
			b.state = extValueStart
		case class[c]&isToken == 0 || b.state == extQuotedEnd:
			return errChunkExtension
		}
	}
	return nil
}

// trailer takes a byte of the trailer section (RFC 9112 section 7.1.2).
func (b *Body) trailer(c byte) *Error {
	if b.trailers++; b.trailers > maxTrailerBytes {
		return errTrailersLarge
	}
	switch b.state {
	case trailerStart:
		switch {
		case class[c]&isToken != 0:
			b.state, b.nameLen = trailerName, 0
			b.trailerName(c)
		case c == '\r':
			b.state = endLF
		case c == ':':
			return errEmptyName
		case c == ' ' || c == '\t':
			return errFolded
		default:
			return nameError(c)
		}
	case trailerName:
		switch {
		case class[c]&isToken != 0:
			b.trailerName(c)
		case c != ':':
			return nameError(c)
		case b.nameLen != nameTooLong && forbiddenTrailer(b.name[:b.nameLen]):
			return errTrailerName
		default:
			b.state = trailerValue
		}
	case trailerValue:
		if c == '\r' {
			b.state = trailerLF
		} else if class[c]&isValue == 0 {
			return valueError(c)
		}
	case trailerLF:
		if c != '\n' {
			return errBareCR
		}
		b.state = trailerStart
	case endLF:
		if c != '\n' {
			return errBareCR
		}
		b.state = bodyDone
	}
	return nil
}

// trailerName takes a byte of a trailer's name.
func (b *Body) trailerName(c byte) {
	if int(b.nameLen) < len(b.name) {
		b.name[b.nameLen] = lowerCase(c)
		b.nameLen++
	} else {
		b.nameLen = nameTooLong
	}
}

// maxForbiddenTrailer is the length of the longest name in forbiddenTrailer.
const (
	maxForbiddenTrailer = len("proxy-authorization")
	nameTooLong         = uint8(maxForbiddenTrailer + 1)
)

// forbiddenTrailer reports whether a field (lower case) must not come after the
// body (RFC 9110 section 6.5.1): a recipient that merged it into the head would
// see other framing, routing, authentication or content than we did.
func forbiddenTrailer(name []byte) bool {
	switch string(name) {
	case "content-length", "transfer-encoding", "trailer", // framing
		"connection", "keep-alive", "proxy-connection", "te", "upgrade", // this hop
		"host", "via", "max-forwards", "forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", // routing
		"expect",                                                                                                 // control
		"authorization", "proxy-authorization", "proxy-authenticate", "www-authenticate", "cookie", "set-cookie", // authentication
		"content-encoding", "content-type", "content-range": // content
		return true
	}
	return false
}
