package subscribe

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// The stored form of a route table, all numbers big-endian:
//
//	magic         8 bytes  "rvpxtabl"
//	format        4        formatNumber
//	revision      8
//	version       1 + n    length, bytes
//	decoded size  8
//	payload       8 + n    length, bytes: the gzip data as the control plane sent it
//	checksum      32       SHA-256 of everything before it
//
// Behind it are the changes since, in their order, each with the same fields from the
// revision on. Its payload is a delta to what is before it; of one without a payload only
// the revision is new. Its checksum is that of the checksum before it and its own fields,
// so that it counts nowhere else. Releases that know no changes refuse a file that has some.
//
// The checksum finds damage, not manipulation: whoever may write the file may
// also configure the data plane. The version is recomputed from the payload all
// the same, as for a table that comes from the control plane.
const (
	formatMagic  = "rvpxtabl"
	formatNumber = 1
	maxFileSize  = maxEncodedSize + maxEncodedSize/changesPart + (1+maxChanges)*1024

	// Changes go behind a table until there are so many, or until they would take more
	// than such a part of what the table takes. Each spares 60 ms of packing 100,000
	// endpoints, and makes a start with them 10 ms longer (BenchmarkRestore).
	maxChanges  = 20
	changesPart = 4
)

// Reasons why a file is not used, for the log.
var (
	errForeign   = errors.New("not a stored route table")
	errTruncated = errors.New("the file is cut short")
	errChecksum  = errors.New("the checksum does not match: the file is damaged")
)

// appendFile appends the stored form of o, a whole table, to p.
func appendFile(p []byte, o *offer) []byte {
	start := len(p)
	p = append(p, formatMagic...)
	p = binary.BigEndian.AppendUint32(p, formatNumber)
	return appendFields(p, start, o)
}

// appendFields appends the fields of o from the revision on to p. The checksum is that of
// p from start on.
func appendFields(p []byte, start int, o *offer) []byte {
	p = binary.BigEndian.AppendUint64(p, o.revision)
	p = append(p, byte(len(o.version)))
	p = append(p, o.version...)
	p = binary.BigEndian.AppendUint64(p, o.decodedSize)
	p = binary.BigEndian.AppendUint64(p, uint64(len(o.data)))
	p = append(p, o.data...)
	sum := sha256.Sum256(p[start:])
	return append(p, sum[:]...)
}

// parseFile reads the stored form: the whole table, and the changes behind it. They refer
// to p. With an error, what it returns is the part of the file that is in order, if the
// table is: a crash may have cut the last change short.
func parseFile(p []byte) (parts []*offer, err error) {
	if n := min(len(p), len(formatMagic)); n == 0 || !bytes.Equal(p[:n], []byte(formatMagic)[:n]) {
		return nil, errForeign
	}
	r := reader{rest: p[min(len(p), len(formatMagic)):]}
	if f := binary.BigEndian.Uint32(pad(r.take(4), 4)); !r.short && f != formatNumber {
		return nil, fmt.Errorf("stored in format %d, this release reads format %d", f, formatNumber)
	}
	for start, at := 0, len(p)-len(r.rest); at < len(p) || len(parts) == 0; start = at - sha256.Size {
		var o *offer
		if o, at, err = parseFields(p, start, at); err != nil {
			return parts, err
		}
		parts = append(parts, o)
	}
	return parts, nil
}

// parseFields reads fields from the revision on, which begin at an offset of p, and
// returns where they end. The checksum is that of p from start on.
func parseFields(p []byte, start, at int) (o *offer, end int, err error) {
	r := reader{rest: p[at:]}
	o = &offer{revision: r.uint64()}
	o.version = string(r.take(uint64(pad(r.take(1), 1)[0])))
	o.decodedSize = r.uint64()
	o.data = r.take(r.uint64())
	covered := p[start : len(p)-len(r.rest)]
	sum := r.take(sha256.Size)
	switch {
	case r.short:
		return nil, 0, errTruncated
	case sha256.Sum256(covered) != [sha256.Size]byte(sum):
		return nil, 0, errChecksum
	case len(o.version) > maxVersionSize:
		return nil, 0, errForeign
	}
	return o, len(p) - len(r.rest), nil
}

// reader takes bytes from the front; once they run out it stays short.
type reader struct {
	rest  []byte
	short bool
}

func (r *reader) take(n uint64) []byte {
	if r.short || n > uint64(len(r.rest)) {
		r.short = true
		return nil
	}
	p := r.rest[:n:n]
	r.rest = r.rest[n:]
	return p
}

func (r *reader) uint64() uint64 { return binary.BigEndian.Uint64(pad(r.take(8), 8)) }

// pad stands in for bytes that were not there, so that a parse runs to its end
// and is judged once.
func pad(p []byte, n int) []byte {
	if len(p) < n {
		return make([]byte, n)
	}
	return p
}
