package history

import (
	"bytes"
	"testing"
	"time"

	fleetv1 "reverseproxy/proto/fleet/v1"
)

// FuzzDecode: no file panics, and what is believed is what was written.
func FuzzDecode(f *testing.F) {
	text := []byte("port: 8000\nendpoints: []\n")
	e := Entry{Revision: 7, Version: "abc", AcceptedAt: time.Unix(1, 2).UTC(), Origin: fleetv1.Origin_ORIGIN_APPLY, Size: len(text)}
	good := encode(e, pack(text))
	f.Add(good)
	f.Add(encode(e, nil))
	f.Add(encode(Entry{Revision: 1, Version: "a", Size: 1 << 20}, pack(make([]byte, 1<<10))))
	f.Add(encode(Entry{}, nil))
	f.Add([]byte(magic))
	f.Add([]byte(magic + checksum([]byte("{}\n")) + "\n{}\n"))
	f.Add(good[:len(good)-3])
	f.Fuzz(func(t *testing.T, data []byte) {
		e, packed, err := decode(data)
		if err != nil {
			// The same with a good checksum reaches what comes after it.
			if _, body, found := bytes.Cut(data, []byte("\n")); found {
				e, packed, err = decode(append([]byte(magic+checksum(body)+"\n"), body...))
			}
		}
		if err != nil {
			return
		}
		if e.Revision == 0 || e.Revision > maxRevision || e.Version == "" {
			t.Fatalf("believed %+v", e)
		}
		content, err := unpack(packed, e.Size)
		if err == nil && len(content) != e.Size {
			t.Fatalf("%d bytes, want %d", len(content), e.Size)
		}
		again, packedAgain, err := decode(encode(e, packed))
		if err != nil || again.Revision != e.Revision || again.Message != e.Message || !bytes.Equal(packed, packedAgain) {
			t.Fatalf("%+v became %+v, %v", e, again, err)
		}
	})
}
