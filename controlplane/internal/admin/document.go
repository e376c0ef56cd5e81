package admin

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"reverseproxy/proto/gzipped"
)

// document is an answer in JSON, ready to be sent any number of times.
type document struct {
	body []byte
	tag  string
	// zipped is made when somebody wants it.
	zip    sync.Once
	zipped []byte
}

// worthZipping is from which size on an answer is compressed: a smaller one fits into
// a packet anyway.
const worthZipping = 1400

func newDocument(body []byte) *document {
	sum := sha256.Sum256(body)
	// Weak: the same content has the same tag, compressed or not.
	return &document{body: body, tag: `W/"` + hex.EncodeToString(sum[:8]) + `"`}
}

// serve answers with the document, or with 304 when the client has it.
func (d *document) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("Vary", "Accept-Encoding")
	h.Set("ETag", d.tag)
	body := d.body
	if len(body) > worthZipping && strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		body = d.compressed()
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

func (d *document) compressed() []byte {
	d.zip.Do(func() { d.zipped = gzipped.Compress(d.body, gzipped.Fast) })
	return d.zipped
}

// shared is a value that several readers share who are content with one that is a
// little old: open pages, which ask every second. Its methods may be called from
// several goroutines.
type shared[T any] struct {
	make func() T

	mu    sync.Mutex
	value T
	made  time.Time
	cost  time.Duration
}

// patience is how many times the cost of a value a reader who is content with an old
// one waits for the next: pages cost at most a twentieth of a core, however large
// the fleet is and however many are open.
const patience = 20

// get returns a value that is at most as old as given, or, when it is not given as
// zero, as old as its cost allows; and its age.
func (s *shared[T]) get(most time.Duration) (T, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if age := time.Since(s.made); most > 0 && !s.made.IsZero() && age < max(most, patience*s.cost) {
		return s.value, age
	}
	begun := time.Now()
	s.value = s.make()
	s.made = time.Now()
	s.cost = s.made.Sub(begun)
	return s.value, 0
}

// maxAge returns how old an answer may be by the request's Cache-Control: max-age;
// who does not say so gets a new one.
func maxAge(r *http.Request) time.Duration {
	for directive := range strings.SplitSeq(r.Header.Get("Cache-Control"), ",") {
		if seconds, ok := strings.CutPrefix(strings.TrimSpace(directive), "max-age="); ok {
			n, err := strconv.ParseUint(seconds, 10, 16)
			if err != nil {
				return 0
			}
			return time.Duration(n) * time.Second
		}
	}
	return 0
}
