package subscribe

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protowire"

	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// Limits of one route table, set on purpose: 100,000 endpoints with three
// backends each are 13 MB decoded and 1 MB encoded, so these leave room for
// twenty times that and still bound what a broken control plane can make a data
// plane allocate.
const (
	maxEncodedSize = 64 << 20  // joined chunks, and the payload of a stored file
	maxDecodedSize = 256 << 20 // the marshalled RouteTable
	maxChunks      = 16384     // 4 KiB each would still reach maxEncodedSize
	maxVersionSize = 128       // a version is 64 hexadecimal digits today

	// maxParts bounds the endpoints, and what is listed in them, in one table.
	// Each takes minPartSize bytes on the wire at least and a hundred times that in
	// memory.
	maxParts    = 10_000_000
	minPartSize = 2
)

// offer is a route table as it was sent or stored: not yet decoded, not yet
// believed. It is immutable once it has been handed on.
type offer struct {
	version     string // what the sender says; recomputed on activation
	revision    uint64
	decodedSize uint64
	data        []byte // gzip of the marshalled RouteTable, or RouteTableDelta
	base        string // the version that the delta starts from; empty: it is no delta
	// changes are stored deltas that have yet to be merged, in this order; version and
	// revision are those of the last.
	changes []*offer
}

// same returns an offer of the table of which it has the version already: there is no
// other news than the revision.
func same(version string, revision uint64) *offer {
	return &offer{version: version, revision: revision, base: version}
}

// maxRatio is how much more than its own size deflate can make of anything: a
// match of 258 bytes takes two bits.
const maxRatio = 1032

// unpack returns the marshalled route table.
func (o *offer) unpack() ([]byte, error) {
	table, err := o.unpackData()
	for _, change := range o.changes {
		if err == nil && len(change.data) > 0 {
			table, err = change.merge(table)
		}
	}
	return table, err
}

// merge returns the marshalled route table that a delta makes of another.
func (o *offer) merge(base []byte) ([]byte, error) {
	delta, err := o.unpackData()
	if err != nil {
		return nil, err
	}
	table, err := routetable.Merge(base, delta)
	switch {
	case err != nil:
		return nil, err
	case len(table) > maxDecodedSize:
		return nil, tooLarge(uint64(len(table)))
	case tooManyParts(table):
		return nil, errParts
	}
	return table, nil
}

// unpackData returns the marshalled RouteTable or RouteTableDelta. It never produces more
// than the announced size, however much a manipulated stream would unpack to.
func (o *offer) unpackData() ([]byte, error) {
	if o.decodedSize > maxDecodedSize {
		return nil, tooLarge(o.decodedSize)
	}
	z, err := gzip.NewReader(bytes.NewReader(o.data))
	if err != nil {
		return nil, fmt.Errorf("unpack the route table: %w", err)
	}
	// The table is kept as it is, so it gets the room that it needs and no more.
	// The announced size is only a promise; one that cannot be kept gets no room.
	if o.decodedSize > maxRatio*uint64(len(o.data)) {
		return nil, fmt.Errorf("the route table cannot unpack to the announced %d bytes", o.decodedSize)
	}
	encoded := make([]byte, o.decodedSize)
	n, err := io.ReadFull(z, encoded)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fmt.Errorf("the route table unpacks to %d bytes, announced were %d", n, o.decodedSize)
	case err != nil:
		return nil, fmt.Errorf("unpack the route table: %w", err)
	}
	// Only the end of the stream says whether it was whole.
	switch n, err := io.CopyN(io.Discard, z, 1); {
	case n > 0:
		return nil, fmt.Errorf("the route table unpacks to more than the announced %d bytes", o.decodedSize)
	case !errors.Is(err, io.EOF):
		return nil, fmt.Errorf("unpack the route table: %w", err)
	}
	if tooManyParts(encoded) {
		return nil, errParts
	}
	return encoded, nil
}

// tooManyParts counts what decoding the table would allocate, without doing it.
// Bytes that are no table are left to the decoder to refuse.
func tooManyParts(table []byte) bool {
	if len(table) <= minPartSize*maxParts {
		return false
	}
	n := 0
	count := func(f routetable.Field) bool {
		if f.Kind == protowire.BytesType {
			n++
		}
		return n <= maxParts
	}
	_ = routetable.Walk(table, func(f routetable.Field) bool {
		if count(f) && f.Kind == protowire.BytesType {
			_ = routetable.Walk(table[f.Value:f.End], count)
		}
		return n <= maxParts
	})
	return n > maxParts
}

var errParts = fmt.Errorf("the route table has more than %d endpoints, backends and conditions", maxParts)

func tooLarge(n uint64) error {
	return fmt.Errorf("the route table is %d bytes, at most %d are accepted", n, maxDecodedSize)
}

// errSequence is a sender that does not keep the protocol; nothing it sends can
// be trusted to fit together, so the stream is given up.
var errSequence = errors.New("the control plane broke the protocol")

// refusal is a table that this data plane will not take. The stream is sound
// and goes on; the sender is told.
type refusal struct {
	version  string
	revision uint64
	delta    bool // of a delta: the table itself may be fine
	reason   error
}

func (r *refusal) Error() string { return r.reason.Error() }
func (r *refusal) Unwrap() error { return r.reason }

// assembly joins the chunks of one route table after the other. The zero value
// waits for the first chunk. It belongs to the goroutine that reads the stream.
type assembly struct {
	offer
	count, next uint32
	encoding    routetablev1.Encoding
	// skip is set while the rest of a refused table passes by.
	skip bool
}

// add takes the next chunk of the stream and returns a table when it is
// complete. It returns a *refusal for a table that is not acceptable, once per
// table, and an errSequence when the chunks make no sense.
func (a *assembly) add(c *routetablev1.Chunk) (*offer, error) {
	if c.GetIndex() == 0 {
		if err := a.start(c); err != nil {
			return nil, err
		}
	} else if err := a.continues(c); err != nil {
		*a = assembly{}
		return nil, err
	}
	a.next++
	if a.skip {
		return nil, nil
	}
	if len(a.data)+len(c.GetData()) > maxEncodedSize {
		return nil, a.refuse(fmt.Errorf("the encoded route table is larger than the %d bytes that are accepted", maxEncodedSize))
	}
	// The first chunk is not copied: most tables are one chunk. Its slice has no
	// spare capacity that anybody else could see, because it was decoded for us.
	if a.data == nil {
		a.data = c.GetData()
	} else {
		a.data = append(a.data, c.GetData()...)
	}
	if a.next < a.count {
		return nil, nil
	}
	done := a.offer
	*a = assembly{}
	return &done, nil
}

// start begins a table, whatever came before: a newer one may cut an older one
// short.
func (a *assembly) start(c *routetablev1.Chunk) error {
	*a = assembly{}
	if n := c.GetCount(); n == 0 || n > maxChunks {
		return fmt.Errorf("%w: a table of %d chunks", errSequence, n)
	}
	if n := len(c.GetVersion()); n == 0 || n > maxVersionSize {
		return fmt.Errorf("%w: a version of %d bytes", errSequence, n)
	}
	a.offer = offer{version: c.GetVersion(), revision: c.GetRevision(), decodedSize: c.GetDecodedSize(), base: c.GetBase()}
	a.count, a.encoding = c.GetCount(), c.GetEncoding()
	switch a.encoding {
	case routetablev1.Encoding_ENCODING_GZIP, routetablev1.Encoding_ENCODING_DELTA_GZIP:
		if n := len(a.base); n > maxVersionSize || (n > 0) != (a.encoding == routetablev1.Encoding_ENCODING_DELTA_GZIP) {
			return fmt.Errorf("%w: encoding %v with a base of %d bytes", errSequence, a.encoding, n)
		}
	default:
		a.next++
		return a.refuse(fmt.Errorf("the route table has encoding %v, which this data plane does not know", a.encoding))
	}
	if c.GetDecodedSize() > maxDecodedSize {
		a.next++
		return a.refuse(tooLarge(c.GetDecodedSize()))
	}
	return nil
}

// continues checks that the chunk is the next one of the table that has begun.
func (a *assembly) continues(c *routetablev1.Chunk) error {
	switch {
	case a.next == 0:
		return fmt.Errorf("%w: chunk %d without a first one", errSequence, c.GetIndex())
	case c.GetIndex() != a.next || c.GetIndex() >= a.count:
		return fmt.Errorf("%w: chunk %d of %d where %d was due", errSequence, c.GetIndex(), a.count, a.next)
	case c.GetVersion() != a.version || c.GetRevision() != a.revision || c.GetCount() != a.count ||
		c.GetEncoding() != a.encoding || c.GetBase() != a.base || c.GetDecodedSize() != a.decodedSize:
		return fmt.Errorf("%w: chunk %d belongs to another table", errSequence, c.GetIndex())
	}
	return nil
}

// refuse drops what has been collected; later chunks of the table are skipped.
func (a *assembly) refuse(reason error) error {
	a.skip, a.data = true, nil
	return &refusal{version: a.version, revision: a.revision, delta: a.base != "", reason: reason}
}
