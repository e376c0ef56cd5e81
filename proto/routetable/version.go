package routetable

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"hash/maphash"

	"google.golang.org/protobuf/types/known/durationpb"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

// Version returns the SHA-256 of the table's canonical form in lower-case
// hexadecimal. Equal content has an equal version in every process and every
// release: the canonical form is our own (protobuf bytes are not stable) and
// leaves out fields that have their default value, so that a field added later
// changes only the tables that use it.
//
// The canonical form of a message is the concatenation of its fields in
// ascending order of their numbers in routetable.proto. A field is
//
//	number  unsigned LEB128
//	length  unsigned LEB128, bytes of the value
//	value   string: its bytes
//	        integer, enum: unsigned LEB128 of its 64-bit two's complement
//	        bool: one byte 1
//	        message: its canonical form
//
// A field is left out when it is an empty string, a zero, false, or a message
// that is not set; a message that is set is there even if its value is empty.
// Elements of a repeated field follow each other in order, each as a field of
// its own and never left out. A member of a oneof is there when it is the one
// that is set, even if its value is empty: the prefix "" is the field 3 with
// length 0. Fields unknown to this release do not take part; Validate refuses
// them.
func Version(t *routetablev1.RouteTable) string {
	d := newDigest(t)
	for _, e := range t.GetEndpoints() {
		d.endpoint(e)
	}
	return d.sum(t)
}

// Digests returns a number for each endpoint of the table. Endpoints of which they are
// equal have, but for chance, the same canonical form. They are for this process only.
func Digests(t *routetablev1.RouteTable) []uint64 {
	digests := make([]uint64, 0, len(t.GetEndpoints()))
	var c canonical
	for _, e := range t.GetEndpoints() {
		c.buf = c.buf[:0]
		c.endpoint(3, e)
		digests = append(digests, maphash.Bytes(digestSeed, c.buf))
	}
	return digests
}

var digestSeed = maphash.MakeSeed()

// digest hashes the canonical form of a table as it comes: a large table needs
// no second copy.
type digest struct {
	h hash.Hash
	c canonical
}

// newDigest begins with the fields before the endpoints.
func newDigest(t *routetablev1.RouteTable) *digest {
	d := &digest{h: sha256.New()}
	d.c.uint(1, uint64(t.GetPort()))
	d.c.bool(2, t.GetHideMetricsOnProxyPort())
	return d
}

// endpoint adds the next endpoint.
func (d *digest) endpoint(e *routetablev1.Endpoint) {
	d.c.endpoint(3, e)
	d.flush()
}

// sum adds the fields after the endpoints and returns the version.
func (d *digest) sum(t *routetablev1.RouteTable) string {
	d.c.limits(4, t.GetLimits())
	d.c.accessLog(5, t.GetAccessLog())
	d.c.bool(6, t.GetRequestId())
	for _, prefix := range t.GetTrustedProxies() {
		d.c.element(7, prefix)
	}
	d.c.bool(8, t.GetProxyProtocol())
	d.c.duration(9, t.GetResolveInterval())
	d.flush()
	return hex.EncodeToString(d.h.Sum(nil))
}

func (d *digest) flush() {
	d.h.Write(d.c.buf)
	d.c.buf = d.c.buf[:0]
}

// canonical builds the canonical form.
type canonical struct{ buf []byte }

func (c *canonical) endpoint(number int, e *routetablev1.Endpoint) {
	start := c.begin(number)
	c.string(1, e.GetName())
	switch p := e.GetPath().(type) {
	case *routetablev1.Endpoint_Exact:
		c.element(2, p.Exact)
	case *routetablev1.Endpoint_Prefix:
		c.element(3, p.Prefix)
	}
	for _, host := range e.GetHosts() {
		c.element(4, host)
	}
	for _, method := range e.GetMethods() {
		c.element(5, method)
	}
	for _, m := range e.GetHeaders() {
		start := c.begin(6)
		c.string(1, m.GetName())
		c.string(2, m.GetValue())
		c.end(start)
	}
	for _, b := range e.GetPool() {
		start := c.begin(7)
		c.string(1, b.GetUrl())
		c.uint(2, uint64(b.GetWeight()))
		c.bool(3, b.GetBackup())
		c.uint(4, uint64(b.GetMaxRequests()))
		c.end(start)
	}
	if t := e.GetTimeouts(); t != nil {
		start := c.begin(8)
		c.duration(1, t.GetConnect())
		c.duration(2, t.GetResponse())
		c.duration(3, t.GetIdle())
		c.duration(4, t.GetRequest())
		c.end(start)
	}
	c.bool(9, e.GetReplaceHost())
	c.behaviour(e)
	c.end(start)
}

func (c *canonical) limits(number int, l *routetablev1.Limits) {
	if l == nil {
		return
	}
	start := c.begin(number)
	c.uint(1, uint64(l.GetMaxHeadBytes()))
	c.uint(2, uint64(l.GetMaxHeaderCount()))
	c.uint(3, uint64(l.GetMaxUriBytes()))
	c.duration(4, l.GetHeaderTimeout())
	c.duration(5, l.GetIdleTimeout())
	c.uint(6, uint64(l.GetMaxConnections()))
	c.end(start)
}

func (c *canonical) accessLog(number int, l *routetablev1.AccessLog) {
	if l == nil {
		return
	}
	start := c.begin(number)
	c.string(1, l.GetPath())
	c.uint(2, uint64(l.GetFormat()))
	c.uint(3, uint64(l.GetSamplePerMillion()))
	c.end(start)
}

func (c *canonical) duration(number int, d *durationpb.Duration) {
	if d == nil {
		return
	}
	start := c.begin(number)
	c.uint(1, uint64(d.GetSeconds()))
	c.uint(2, uint64(int64(d.GetNanos())))
	c.end(start)
}

// element writes a string that is there even if it is empty.
func (c *canonical) element(number int, s string) {
	c.buf = binary.AppendUvarint(c.buf, uint64(number))
	c.buf = binary.AppendUvarint(c.buf, uint64(len(s)))
	c.buf = append(c.buf, s...)
}

func (c *canonical) string(number int, s string) {
	if s != "" {
		c.element(number, s)
	}
}

func (c *canonical) uint(number int, v uint64) {
	if v != 0 {
		start := c.begin(number)
		c.buf = binary.AppendUvarint(c.buf, v)
		c.end(start)
	}
}

func (c *canonical) bool(number int, v bool) {
	if v {
		c.uint(number, 1)
	}
}

// begin writes a field's number, and leaves room for its length, which nearly
// always is one byte. It returns where the value begins.
func (c *canonical) begin(number int) (start int) {
	c.buf = binary.AppendUvarint(c.buf, uint64(number))
	c.buf = append(c.buf, 0)
	return len(c.buf)
}

// end puts the length before the value that begins at start.
func (c *canonical) end(start int) {
	size := len(c.buf) - start
	if size < 0x80 {
		c.buf[start-1] = byte(size)
		return
	}
	var length [binary.MaxVarintLen64]byte
	n := binary.PutUvarint(length[:], uint64(size))
	c.buf = append(c.buf, length[1:n]...) // grow
	copy(c.buf[start-1+n:], c.buf[start:start+size])
	copy(c.buf[start-1:], length[:n])
}
