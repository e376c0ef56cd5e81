//go:build linux

package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"sync"

	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

var errDiffers = errors.New("the bytes are not those that another data plane got")

// library is what has been received, kept once for all data planes.
type library struct {
	mu     sync.Mutex
	joined map[transfer]*joined
	tables map[string][]byte // marshalled and verified, by version
}

// transfer names the bytes of which all data planes must get the same.
type transfer struct {
	version, base string
	encoding      routetablev1.Encoding
}

// joined is the data of the chunks of one transfer, as far as the fastest data plane
// has got.
type joined struct {
	mu   sync.Mutex
	data []byte

	once sync.Once
	err  error // of verify
}

// of returns what is known of a transfer.
func (l *library) of(t transfer) *joined {
	l.mu.Lock()
	defer l.mu.Unlock()
	j := l.joined[t]
	if j == nil {
		j = &joined{}
		l.joined[t] = j
	}
	return j
}

// take compares a part with what others got at the same place, or keeps it.
func (j *joined) take(offset int, part []byte) error {
	j.mu.Lock()
	known := j.data[min(offset, len(j.data)):min(offset+len(part), len(j.data))]
	if len(known) < len(part) && offset+len(known) == len(j.data) {
		j.data = append(j.data, part[len(known):]...)
	}
	j.mu.Unlock()
	if !bytes.Equal(known, part[:len(known)]) {
		return errDiffers
	}
	return nil
}

// verify unpacks a transfer that has been received as a whole, and computes the
// version of the table. It does so once; whoever asks meanwhile waits.
func (l *library) verify(t transfer, size int, decoded uint64) error {
	j := l.of(t)
	j.once.Do(func() { j.err = l.unpack(t, j.data, decoded) })
	if j.err == nil && size != len(j.data) {
		return errDiffers
	}
	return j.err
}

func (l *library) unpack(t transfer, data []byte, decoded uint64) error {
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return err
	}
	raw, err := io.ReadAll(z)
	if err != nil {
		return err
	}
	if uint64(len(raw)) != decoded {
		return fmt.Errorf("%d bytes, announced were %d", len(raw), decoded)
	}
	switch t.encoding {
	case routetablev1.Encoding_ENCODING_GZIP:
	case routetablev1.Encoding_ENCODING_DELTA_GZIP:
		l.mu.Lock()
		base := l.tables[t.base]
		l.mu.Unlock()
		if raw, err = routetable.Merge(base, raw); err != nil {
			return err
		}
	default:
		return fmt.Errorf("encoding %v", t.encoding)
	}
	_, version, err := routetable.Scan(raw, func(*routetablev1.Endpoint, int, int) {})
	if err != nil {
		return err
	}
	if version != t.version {
		return fmt.Errorf("the content has version %s", version)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tables[t.version] = raw
	return nil
}
