package history

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"reverseproxy/controlplane/internal/source"
	fleetv1 "reverseproxy/proto/fleet/v1"
	"reverseproxy/proto/gzipped"
)

// Entry is one accepted configuration without its text.
type Entry struct {
	// Revision is its number, and Version that of its route table.
	Revision uint64 `json:"revision"`
	Version  string `json:"version"`
	// Formerly are numbers that it had before, the last ones: see Renumber.
	Formerly []uint64 `json:"formerly,omitempty"`
	// AcceptedAt is when it became the desired configuration.
	AcceptedAt time.Time `json:"acceptedAt"`
	// Author is who has applied it, empty when the file was edited; Message is why.
	Author  string `json:"author,omitempty"`
	Message string `json:"message,omitempty"`
	// Origin is where it came from.
	Origin fleetv1.Origin `json:"origin"`
	// Restores is the revision whose content it has, after a rollback or an abort.
	Restores uint64 `json:"restores,omitempty"`
	// Drained are the backends, by URL, that got no requests whatever the text says.
	Drained []string `json:"drained,omitempty"`
	// Endpoints is how many it has.
	Endpoints int `json:"endpoints"`
	// Size is that of the text in bytes.
	Size int `json:"size"`
	// Outcome is what became of its roll-out; empty: it had none, or that one is
	// going on.
	Outcome string `json:"outcome,omitempty"`
}

// has reports whether the entry has a revision, or has had it.
func (e Entry) has(revision uint64) bool {
	return e.Revision == revision || slices.Contains(e.Formerly, revision)
}

// magic begins the first line of a file; the rest of the line is the SHA-256 of
// everything after it: a line of JSON, and the text, compressed.
const magic = "reverseproxy history 1 "

// maxRevision keeps a nonsensical number from leaving no room to count on.
const maxRevision = 1 << 53

// errForeign is a file that was not written by a control plane.
var errForeign = errors.New("it is not a revision that a control plane has written")

// pack compresses a text. The fastest level is enough: what is kept is bounded, and
// whoever has saved a file is waiting for it to be served.
func pack(text []byte) []byte {
	return gzipped.Compress(text, gzipped.Fast)
}

// unpack is the reverse of pack; the text has the size given.
func unpack(packed []byte, size int) ([]byte, error) {
	zip, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(zip, int64(size)+1))
	if err != nil {
		return nil, err
	}
	if len(text) != size {
		return nil, fmt.Errorf("the text does not have the %d bytes that it should", size)
	}
	return text, nil
}

// encode returns the content of an entry's file.
func encode(e Entry, packed []byte) []byte {
	head, err := json.Marshal(e)
	if err != nil {
		panic(fmt.Sprintf("encode an entry: %v", err))
	}
	body := append(append(head, '\n'), packed...)
	return append([]byte(magic+checksum(body)+"\n"), body...)
}

// decode takes the content of a file apart. An entry that it returns is whole and
// makes sense.
func decode(data []byte) (Entry, []byte, error) {
	line, body, found := bytes.Cut(data, []byte("\n"))
	sum, ours := bytes.CutPrefix(line, []byte(magic))
	if !found || !ours {
		return Entry{}, nil, errForeign
	}
	if string(sum) != checksum(body) {
		return Entry{}, nil, errors.New("its checksum is wrong")
	}
	head, packed, _ := bytes.Cut(body, []byte("\n"))
	var e Entry
	if err := json.Unmarshal(head, &e); err != nil {
		return Entry{}, nil, err
	}
	if e.Revision == 0 || e.Revision > maxRevision || e.Version == "" || e.Size < 0 || e.Size > source.MaxSize {
		return Entry{}, nil, errForeign
	}
	return e, packed, nil
}

func checksum(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
