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
// The checksum finds damage, not manipulation: whoever may write the file may
// also configure the data plane. The version is recomputed from the payload all
// the same, as for a table that comes from the control plane.
const (
	formatMagic  = "rvpxtabl"
	formatNumber = 1
	maxFileSize  = maxEncodedSize + 1024
)

// Reasons why a file is not used, for the log.
var (
	errForeign   = errors.New("not a stored route table")
	errTruncated = errors.New("the file is cut short")
	errTrailing  = errors.New("the file has bytes after its end")
	errChecksum  = errors.New("the checksum does not match: the file is damaged")
)

// appendFile appends the stored form of o to p.
func appendFile(p []byte, o *offer) []byte {
	start := len(p)
	p = append(p, formatMagic...)
	p = binary.BigEndian.AppendUint32(p, formatNumber)
	p = binary.BigEndian.AppendUint64(p, o.revision)
	p = append(p, byte(len(o.version)))
	p = append(p, o.version...)
	p = binary.BigEndian.AppendUint64(p, o.decodedSize)
	p = binary.BigEndian.AppendUint64(p, uint64(len(o.data)))
	p = append(p, o.data...)
	sum := sha256.Sum256(p[start:])
	return append(p, sum[:]...)
}

// parseFile reads the stored form. The result refers to p.
func parseFile(p []byte) (*offer, error) {
	if n := min(len(p), len(formatMagic)); n == 0 || !bytes.Equal(p[:n], []byte(formatMagic)[:n]) {
		return nil, errForeign
	}
	r := reader{rest: p[min(len(p), len(formatMagic)):]}
	if f := binary.BigEndian.Uint32(pad(r.take(4), 4)); !r.short && f != formatNumber {
		return nil, fmt.Errorf("stored in format %d, this release reads format %d", f, formatNumber)
	}
	o := &offer{revision: r.uint64()}
	o.version = string(r.take(uint64(pad(r.take(1), 1)[0])))
	o.decodedSize = r.uint64()
	o.data = r.take(r.uint64())
	sum := r.take(sha256.Size)
	switch {
	case r.short:
		return nil, errTruncated
	case len(r.rest) > 0:
		return nil, errTrailing
	case sha256.Sum256(p[:len(p)-sha256.Size]) != [sha256.Size]byte(sum):
		return nil, errChecksum
	case len(o.version) > maxVersionSize:
		return nil, errForeign
	}
	return o, nil
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
