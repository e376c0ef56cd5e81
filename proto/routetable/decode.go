package routetable

import (
	"math"
	"unicode/utf8"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

// decoder decodes one endpoint after the other. What is usual is decoded here,
// into messages that are used again, with strings that are parts of the bytes:
// without garbage, and so without cycles of the collector while requests are
// served. BenchmarkScan, 100,000 endpoints: 70 MB of it and 390 ms with
// proto.Unmarshal, 2 KB and 125 ms with this.
//
// Everything else is left to proto.Unmarshal, which decides what it means: fields
// and forms that are not known here, fields that come twice, whatever is
// malformed. A field that is added to the contract therefore works without a
// change here; it only costs more.
type decoder struct {
	endpoint                routetablev1.Endpoint
	exact                   routetablev1.Endpoint_Exact
	prefix                  routetablev1.Endpoint_Prefix
	timeouts                routetablev1.Timeouts
	connect, response, idle durationpb.Duration
	backends                []*routetablev1.Backend // in use and not
	headers                 []*routetablev1.HeaderMatch
}

// decode returns an endpoint. It is valid until the next call, and as long as
// nobody changes wire.
func (d *decoder) decode(wire []byte) (*routetablev1.Endpoint, error) {
	if d.usual(wire) {
		return &d.endpoint, nil
	}
	e := new(routetablev1.Endpoint)
	return e, proto.Unmarshal(wire, e)
}

// The tags of the usual fields, which all are one byte: number and wire type.
const (
	nameTag, exactTag, prefixTag, hostsTag, methodsTag = 1<<3 | 2, 2<<3 | 2, 3<<3 | 2, 4<<3 | 2, 5<<3 | 2
	headersTag, poolTag, timeoutsTag, replaceHostTag   = 6<<3 | 2, 7<<3 | 2, 8<<3 | 2, 9 << 3
	headerNameTag, headerValueTag                      = 1<<3 | 2, 2<<3 | 2
	urlTag, weightTag                                  = 1<<3 | 2, 2 << 3
	connectTag, responseTag, idleTag                   = 1<<3 | 2, 2<<3 | 2, 3<<3 | 2
	secondsTag, nanosTag                               = 1 << 3, 2 << 3
)

// usual decodes into d.endpoint, or returns false.
func (d *decoder) usual(wire []byte) bool {
	e := &d.endpoint
	e.Name, e.Path, e.Timeouts, e.ReplaceHost = "", nil, nil, false
	e.Hosts, e.Methods, e.Headers, e.Pool = e.Hosts[:0], e.Methods[:0], e.Headers[:0], e.Pool[:0]
	r := usualFields{rest: wire}
	for r.next() {
		switch r.tag {
		case nameTag:
			e.Name = r.text()
		case exactTag:
			d.exact.Exact = r.text()
			r.odd = r.odd || e.Path != nil
			e.Path = &d.exact
		case prefixTag:
			d.prefix.Prefix = r.text()
			r.odd = r.odd || e.Path != nil
			e.Path = &d.prefix
		case hostsTag:
			e.Hosts = append(e.Hosts, r.text())
			r.again()
		case methodsTag:
			e.Methods = append(e.Methods, r.text())
			r.again()
		case headersTag:
			r.odd = r.odd || !d.header(r.content)
			r.again()
		case poolTag:
			r.odd = r.odd || !d.backend(r.content)
			r.again()
		case timeoutsTag:
			r.odd = r.odd || !d.timeoutsOf(r.content)
		case replaceHostTag:
			e.ReplaceHost = r.value == 1
			r.odd = r.odd || r.value > 1
		default:
			r.odd = true
		}
	}
	return !r.odd
}

func (d *decoder) header(wire []byte) bool {
	e := &d.endpoint
	n := len(e.Headers)
	if n == len(d.headers) {
		d.headers = append(d.headers, new(routetablev1.HeaderMatch))
	}
	h := d.headers[n]
	e.Headers = append(e.Headers, h)
	h.Name, h.Value = "", ""
	r := usualFields{rest: wire}
	for r.next() {
		switch r.tag {
		case headerNameTag:
			h.Name = r.text()
		case headerValueTag:
			h.Value = r.text()
		default:
			r.odd = true
		}
	}
	return !r.odd
}

func (d *decoder) backend(wire []byte) bool {
	e := &d.endpoint
	n := len(e.Pool)
	if n == len(d.backends) {
		d.backends = append(d.backends, new(routetablev1.Backend))
	}
	b := d.backends[n]
	e.Pool = append(e.Pool, b)
	b.Url, b.Weight = "", 0
	r := usualFields{rest: wire}
	for r.next() {
		switch r.tag {
		case urlTag:
			b.Url = r.text()
		case weightTag:
			b.Weight = uint32(r.value)
			r.odd = r.odd || r.value > math.MaxUint32
		default:
			r.odd = true
		}
	}
	return !r.odd
}

func (d *decoder) timeoutsOf(wire []byte) bool {
	t := &d.timeouts
	d.endpoint.Timeouts = t
	t.Connect, t.Response, t.Idle = nil, nil, nil
	r := usualFields{rest: wire}
	for r.next() {
		switch r.tag {
		case connectTag:
			t.Connect = &d.connect
			r.odd = r.odd || !duration(t.Connect, r.content)
		case responseTag:
			t.Response = &d.response
			r.odd = r.odd || !duration(t.Response, r.content)
		case idleTag:
			t.Idle = &d.idle
			r.odd = r.odd || !duration(t.Idle, r.content)
		default:
			r.odd = true
		}
	}
	return !r.odd
}

func duration(d *durationpb.Duration, wire []byte) bool {
	d.Seconds, d.Nanos = 0, 0
	r := usualFields{rest: wire}
	for r.next() {
		switch r.tag {
		case secondsTag:
			d.Seconds = int64(r.value)
		case nanosTag:
			d.Nanos = int32(r.value)
			r.odd = r.odd || r.value > math.MaxInt32
		default:
			r.odd = true
		}
	}
	return !r.odd
}

// usualFields reads the fields of a message, as long as they are usual.
type usualFields struct {
	rest []byte
	odd  bool // something is not
	seen uint16

	tag     byte
	value   uint64 // of a varint
	content []byte // of a field with a length
}

// next reads the next field. Each may come once, see again.
func (r *usualFields) next() bool {
	if r.odd || len(r.rest) == 0 {
		return false
	}
	r.tag = r.rest[0]
	n := 0
	switch r.tag & 7 {
	case byte(protowire.VarintType):
		r.value, n = protowire.ConsumeVarint(r.rest[1:])
	case byte(protowire.BytesType):
		r.content, n = protowire.ConsumeBytes(r.rest[1:])
	}
	bit := uint16(1) << (r.tag >> 3 & 15)
	if n <= 0 || r.tag >= 0x80 || r.seen&bit != 0 {
		r.odd = true
		return false
	}
	r.seen |= bit
	r.rest = r.rest[1+n:]
	return true
}

// again lets the field come again.
func (r *usualFields) again() { r.seen &^= 1 << (r.tag >> 3 & 15) }

// text returns the field as a string that shares its bytes.
func (r *usualFields) text() string {
	r.odd = r.odd || !utf8.Valid(r.content)
	return unsafe.String(unsafe.SliceData(r.content), len(r.content))
}
