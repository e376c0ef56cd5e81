package subscribe

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var offers = cmp.AllowUnexported(offer{})

func payload() *offer {
	return &offer{version: strings.Repeat("ab", 32), revision: 42, decodedSize: 1234, data: []byte("payload")}
}

func TestStoreKeepsATable(t *testing.T) {
	s := NewStore(filepath.Join(t.TempDir(), "deep", "down"))
	if o, err := s.load(); o != nil || err != nil {
		t.Fatalf("load of an empty store: got %v, %v; want nothing", o, err)
	}
	for _, want := range []*offer{payload(), {version: "v2", data: []byte{}}} {
		if err := s.save(want); err != nil {
			t.Fatal(err)
		}
		got, err := s.load()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, offers); diff != "" {
			t.Errorf("stored table (-want +got):\n%s", diff)
		}
	}
	entries, err := os.ReadDir(filepath.Dir(s.Path()))
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 {
		t.Errorf("the state directory holds %v, want only the route table", entries)
	}
	if info, err := os.Stat(s.Path()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the file: %v, %v; want 0600", info.Mode(), err)
	}
}

func TestStoreReplacesALeftoverWithoutFollowingIt(t *testing.T) {
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := NewStore(dir)
	if err := os.Symlink(victim, s.Path()+".tmp"); err != nil {
		t.Fatal(err)
	}
	if err := s.save(payload()); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(victim); string(got) != "precious" {
		t.Errorf("the linked file now holds %q", got)
	}
	if o, err := s.load(); o == nil || err != nil {
		t.Errorf("load: %v, %v", o, err)
	}
}

func TestStoreFailsCleanly(t *testing.T) {
	dir := t.TempDir()
	blocked := filepath.Join(dir, "file")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := NewStore(filepath.Join(blocked, "sub")).save(payload()); err == nil {
		t.Error("save below a file: no error")
	}
	// A directory where the file should be: the rename fails, nothing is left.
	s := NewStore(dir)
	if err := os.MkdirAll(filepath.Join(s.Path(), "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.save(payload()); err == nil {
		t.Error("save over a directory: no error")
	}
	if _, err := os.Stat(s.Path() + ".tmp"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the temporary file is left behind: %v", err)
	}
	if _, err := s.load(); !errors.Is(err, errForeign) {
		t.Errorf("load of a directory: got %v, want %v", err, errForeign)
	}
}

func TestSetRevision(t *testing.T) {
	s := NewStore(t.TempDir())
	if err := s.save(payload()); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name     string
		version  string
		revision uint64
		want     uint64
	}{
		{"other version", "v2", 50, 42},
		{"same version", payload().version, 50, 50},
		{"same again", payload().version, 50, 50},
	} {
		if err := s.setRevision(tt.version, tt.revision); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if o, err := s.load(); err != nil || o.revision != tt.want {
			t.Errorf("%s: revision %d, %v; want %d", tt.name, o.revision, err, tt.want)
		}
	}
}

func TestDamagedFiles(t *testing.T) {
	good := appendFile(nil, payload())
	// resum makes the checksum right again after a change.
	resum := func(p []byte) []byte {
		sum := sha256.Sum256(p[:len(p)-sha256.Size])
		return append(p[:len(p)-sha256.Size], sum[:]...)
	}
	flip := func(i int) []byte {
		p := bytes.Clone(good)
		p[i] ^= 0x40
		return p
	}
	tests := []struct {
		name string
		file []byte
		want error // nil: any error
	}{
		{"empty", nil, errForeign},
		{"foreign", []byte("port: 8000\nendpoints: []\n"), errForeign},
		{"foreign and short", []byte("x"), errForeign},
		{"cut in the magic", good[:4], errTruncated},
		{"cut after the magic", good[:8], errTruncated},
		{"cut in the version", good[:30], errTruncated},
		{"cut in the payload", good[:len(good)-sha256.Size-3], errTruncated},
		{"cut in the checksum", good[:len(good)-1], errTruncated},
		{"bytes after the end", append(bytes.Clone(good), 0), errTrailing},
		{"damaged revision", flip(19), errChecksum},
		{"damaged version", flip(25), errChecksum},
		{"damaged payload", flip(len(good) - sha256.Size - 1), errChecksum},
		{"damaged checksum", flip(len(good) - 1), errChecksum},
		{"zeros", make([]byte, 4096), errForeign},
		{"zeros in the end", append(bytes.Clone(good[:40]), make([]byte, len(good)-40)...), nil},
		{"length runs over", resum(func() []byte {
			p := bytes.Clone(good)
			binary.BigEndian.PutUint64(p[8+4+8+1+64+8:], 1<<63)
			return p
		}()), errTruncated},
		{"another format", resum(func() []byte {
			p := bytes.Clone(good)
			p[11] = 2
			return p
		}()), nil},
		{"long version", appendFile(nil, &offer{version: strings.Repeat("v", 200)}), errForeign},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := NewStore(t.TempDir())
			if err := os.WriteFile(s.Path(), tt.file, 0o600); err != nil {
				t.Fatal(err)
			}
			o, err := s.load()
			if err == nil {
				t.Fatalf("load: got %v, want an error", o)
			}
			if tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("load: got %q, want %q", err, tt.want)
			}
			if !strings.Contains(err.Error(), s.Path()) {
				t.Errorf("load: %q does not name the file", err)
			}
		})
	}
}

// FuzzStore reads any bytes as a stored table. Whatever is accepted is exactly
// what would be written for it.
func FuzzStore(f *testing.F) {
	good := appendFile(nil, payload())
	f.Add(good)
	f.Add(good[:20])
	f.Add(append(bytes.Clone(good), 1))
	f.Add(appendFile(nil, &offer{}))
	f.Add([]byte(formatMagic))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, p []byte) {
		o, err := parseFile(p)
		if err != nil {
			// The same with a right checksum, to get past it.
			if len(p) <= sha256.Size {
				return
			}
			sum := sha256.Sum256(p[:len(p)-sha256.Size])
			p = append(bytes.Clone(p[:len(p)-sha256.Size]), sum[:]...)
			if o, err = parseFile(p); err != nil {
				return
			}
		}
		if again := appendFile(nil, o); !bytes.Equal(again, p) {
			t.Errorf("accepted %x, which is written as %x", p, again)
		}
		if o.decodedSize <= 1<<20 {
			_, _ = o.unpack()
		}
	})
}
