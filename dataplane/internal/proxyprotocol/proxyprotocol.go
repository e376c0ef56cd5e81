// Package proxyprotocol reads the header of the PROXY protocol, version 1 or 2,
// with which a load balancer begins a connection to say who its client is (the
// specification is proxy-protocol.txt of HAProxy). Bytes in, an address out; it
// does no I/O. The request path (package proxy) calls it.
package proxyprotocol

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"unsafe"
)

// MaxBytes is the longest header that is read. A header of version 1 has at most
// 107 bytes; one of version 2 may have as many extensions as fit.
const MaxBytes = 4096

const (
	signature1 = "PROXY "
	signature2 = "\r\n\r\n\x00\r\nQUIT\n"
	maxLine    = 107 // with CRLF, section 2.1
	fixed2     = 16  // signature, version and command, family, length
)

// The errors are for tests and debugging: a connection with any of them ends.
var (
	errSignature = errors.New("no PROXY protocol header")
	errLine      = errors.New("malformed header of version 1")
	errVersion   = errors.New("unknown version or command")
	errFamily    = errors.New("unknown address family or protocol")
	errShort     = errors.New("addresses are cut off")
	errLong      = errors.New("header too long")
)

// Parse reads a header from the start of a connection. It returns its length, or 0
// when more bytes are needed, or an error as soon as the bytes cannot become a
// header. source is the client's address; it is not valid when the header says
// nothing about it (LOCAL, UNKNOWN, or a connection that is not TCP): then the
// address of the connection itself counts.
func Parse(p []byte) (source netip.Addr, n int, err error) {
	switch {
	case startsWith(p, signature1):
		return parse1(p)
	case startsWith(p, signature2):
		return parse2(p)
	}
	return netip.Addr{}, 0, errSignature
}

// startsWith reports whether p begins with a signature, or is the beginning of
// one.
func startsWith(p []byte, signature string) bool {
	n := min(len(p), len(signature))
	return string(p[:n]) == signature[:n]
}

// parse1 reads a line such as "PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n".
func parse1(p []byte) (source netip.Addr, n int, err error) {
	end := bytes.IndexByte(p[:min(len(p), maxLine)], '\n')
	switch {
	case end < 0 && len(p) >= maxLine:
		return netip.Addr{}, 0, errLine
	case end < 0:
		return netip.Addr{}, 0, nil
	case p[end-1] != '\r': // the signature is before it
		return netip.Addr{}, 0, errLine
	}
	line, n := p[len(signature1):end-1], end+1
	protocol, rest, more := bytes.Cut(line, space)
	switch string(protocol) {
	case "UNKNOWN": // section 2.1: whatever follows is ignored
		return netip.Addr{}, n, nil
	case "TCP4", "TCP6":
	default:
		return netip.Addr{}, 0, errLine
	}
	var from, to, fromPort, toPort []byte
	from, rest, more = cut(rest, more)
	to, rest, more = cut(rest, more)
	fromPort, toPort, more = cut(rest, more)
	if !more || !isPort(fromPort) || !isPort(toPort) {
		return netip.Addr{}, 0, errLine
	}
	source, ok := address(from, string(protocol) == "TCP4")
	if _, valid := address(to, string(protocol) == "TCP4"); !ok || !valid {
		return netip.Addr{}, 0, errLine
	}
	return source.Unmap(), n, nil
}

var space = []byte{' '}

// cut is bytes.Cut at a space, of what another cut has left.
func cut(p []byte, more bool) (before, after []byte, found bool) {
	if !more {
		return nil, nil, false
	}
	return bytes.Cut(p, space)
}

// address reads an address of one family.
func address(text []byte, four bool) (a netip.Addr, ok bool) {
	// A copy would be allocated for each (TestDoesNotAllocate). ParseAddr
	// keeps its argument in its error only, which is not kept.
	a, err := netip.ParseAddr(unsafe.String(unsafe.SliceData(text), len(text)))
	return a, err == nil && a.Is4() == four && a.Zone() == ""
}

// isPort reports whether text is a number of 0 to 65535, as it is printed.
func isPort(text []byte) bool {
	n := 0
	for _, c := range text {
		if c < '0' || c > '9' || n > 65535 {
			return false
		}
		n = 10*n + int(c-'0')
	}
	return len(text) > 0 && n <= 65535 && (text[0] != '0' || len(text) == 1)
}

// parse2 reads a binary header (section 2.2).
func parse2(p []byte) (source netip.Addr, n int, err error) {
	const (
		versionAt, familyAt, lengthAt = 12, 13, 14
		local, proxied                = 0x20, 0x21 // version and command
		tcp4, tcp6                    = 0x11, 0x21 // family and protocol
		size4, size6                  = 2*4 + 2*2, 2*16 + 2*2
	)
	if len(p) > versionAt && p[versionAt] != local && p[versionAt] != proxied {
		return netip.Addr{}, 0, errVersion
	}
	if len(p) > familyAt && (p[familyAt]>>4 > 3 || p[familyAt]&15 > 2) {
		return netip.Addr{}, 0, errFamily
	}
	if len(p) < fixed2 {
		return netip.Addr{}, 0, nil
	}
	n = fixed2 + int(binary.BigEndian.Uint16(p[lengthAt:]))
	least := fixed2
	if p[versionAt] == proxied {
		switch p[familyAt] {
		case tcp4:
			least += size4
		case tcp6:
			least += size6
		}
	}
	switch {
	case n > MaxBytes:
		return netip.Addr{}, 0, errLong
	case n < least:
		return netip.Addr{}, 0, errShort
	case len(p) < n:
		return netip.Addr{}, 0, nil
	}
	// What follows the addresses are extensions, which say nothing that is wanted.
	switch least - fixed2 {
	case size4:
		source = netip.AddrFrom4([4]byte(p[fixed2:]))
	case size6:
		source = netip.AddrFrom16([16]byte(p[fixed2:])).Unmap()
	}
	return source, n, nil
}
