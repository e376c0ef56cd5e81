package subscribe

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
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
		wantStored(t, s.Path(), want)
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

// large is a table behind which there is room for changes.
func large() *offer {
	o := payload()
	o.data = bytes.Repeat([]byte("payload"), 1000)
	return o
}

// follower returns a change of what o is, the n-th after the table.
func follower(o *offer, n int) *offer {
	return &offer{
		version: fmt.Sprintf("v%d", n), revision: o.revision + 1, decodedSize: uint64(n), data: fmt.Appendf(nil, "delta %d", n), base: o.version,
	}
}

// wantStored fails the test unless a file has these parts, and nothing else.
func wantStored(t *testing.T, path string, want ...*offer) {
	t.Helper()
	got, err := NewStore(filepath.Dir(path)).load()
	if err != nil {
		t.Fatal(err)
	}
	last := want[len(want)-1]
	whole := *want[0]
	whole.version, whole.revision = last.version, last.revision
	for _, o := range want[1:] {
		change := *o
		change.base = "" // follows from the place in the file
		whole.changes = append(whole.changes, &change)
	}
	if diff := cmp.Diff(&whole, got, offers, cmpopts.EquateEmpty()); diff != "" {
		t.Fatalf("stored table (-want +got):\n%s", diff)
	}
}

func TestStoreKeepsChanges(t *testing.T) {
	s := NewStore(t.TempDir())
	if err := s.change(follower(large(), 1)); err == nil {
		t.Error("a change to nothing: no error")
	}
	stored := []*offer{large()}
	if err := s.save(stored[0]); err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= maxChanges; n++ {
		if n%3 == 0 {
			s = NewStore(filepath.Dir(s.Path())) // another run goes on where it was
			if _, err := s.load(); err != nil {
				t.Fatal(err)
			}
		}
		last := stored[n-1]
		if err := s.change(same(last.version, last.revision)); err != nil {
			t.Fatalf("nothing new behind %d changes: %v", n-1, err)
		}
		if err := s.change(follower(&offer{version: "another"}, n)); err == nil {
			t.Fatal("a change to another version: no error")
		}
		next := follower(last, n)
		if n%4 == 0 {
			next = same(last.version, last.revision+1)
		}
		if err := s.change(next); err != nil {
			t.Fatalf("change %d: %v", n, err)
		}
		stored = append(stored, next)
		wantStored(t, s.Path(), stored...)
	}
	if err := s.change(follower(stored[maxChanges], 100)); err == nil {
		t.Error("one change more than there is room for: no error")
	}
	if err := s.save(large()); err != nil {
		t.Fatal(err)
	}
	most := follower(large(), 1)
	most.data = make([]byte, len(large().data)/changesPart)
	if err := s.change(most); err != nil {
		t.Error(err)
	}
	if err := s.change(follower(most, 2)); err == nil {
		t.Error("more changes than a part of the table: no error")
	}
	wantStored(t, s.Path(), large(), most)
}

// What somebody else has done to the file is not built on.
func TestStoreChangesOnlyWhatItKnows(t *testing.T) {
	for name, meddle := range map[string]func(path string) error{
		"away":      os.Remove,
		"shortened": func(path string) error { return os.Truncate(path, 100) },
		"a link": func(path string) error {
			return errors.Join(os.Rename(path, path+".real"), os.Symlink(path+".real", path))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := NewStore(t.TempDir())
			if err := s.save(large()); err != nil {
				t.Fatal(err)
			}
			if err := meddle(s.Path()); err != nil {
				t.Fatal(err)
			}
			next := follower(large(), 1)
			for range 2 {
				if err := s.change(next); err == nil {
					t.Error("no error")
				}
			}
			whole := *large()
			whole.version = next.version
			if err := s.save(&whole); err != nil {
				t.Fatal(err)
			}
			last := follower(&whole, 2)
			if err := s.change(last); err != nil {
				t.Fatal(err)
			}
			wantStored(t, s.Path(), &whole, last)
		})
	}
}

// Wherever a crash cuts a change, and whatever it leaves there: the state before it is
// what is stored, and the next one is stored as a whole.
func TestAChangeThatIsCutShort(t *testing.T) {
	s := NewStore(t.TempDir())
	first, second := follower(large(), 1), follower(follower(large(), 1), 2)
	var ends []int64
	for _, write := range []func() error{
		func() error { return s.save(large()) },
		func() error { return s.change(first) },
		func() error { return s.change(second) },
	} {
		if err := write(); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, s.file.size)
	}
	file, err := os.ReadFile(s.Path())
	if err != nil {
		t.Fatal(err)
	}
	check := func(file []byte, want *offer, changes int) {
		t.Helper()
		if err := os.WriteFile(s.Path(), file, 0o600); err != nil {
			t.Fatal(err)
		}
		o, err := s.load()
		if err == nil || !strings.Contains(err.Error(), s.Path()) {
			t.Fatalf("error %v, want one that names the file", err)
		}
		if o == nil || o.version != want.version || o.revision != want.revision || len(o.changes) != changes {
			t.Fatalf("stored is %+v, want version %s", o, want.version)
		}
		if err := s.change(follower(want, 3)); err == nil {
			t.Fatal("another change is put behind it")
		}
	}
	for cut := ends[0] + 1; cut < ends[2]; cut++ {
		want, changes, from := large(), 0, ends[0]
		if cut >= ends[1] {
			want, changes, from = first, 1, ends[1]
		}
		if cut != ends[1] {
			check(file[:cut], want, changes)
		}
		damaged := bytes.Clone(file)
		damaged[cut] ^= 0x40
		check(damaged, want, changes)
		clear(damaged[max(cut, from):])
		check(damaged, want, changes)
	}
	// A change counts only where it was put.
	check(append(bytes.Clone(file[:ends[0]]), file[ends[1]:]...), large(), 0)
	check(append(bytes.Clone(file), file[ends[1]:]...), second, 2)
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
	changed := appendFields(good, len(good)-sha256.Size, follower(payload(), 1))
	f.Add(good)
	f.Add(good[:20])
	f.Add(append(bytes.Clone(good), 1))
	f.Add(changed)
	f.Add(changed[:len(changed)-1])
	f.Add(appendFields(changed, len(changed)-sha256.Size, same("v1", 50)))
	f.Add(appendFile(nil, &offer{}))
	f.Add([]byte(formatMagic))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, p []byte) {
		parts, err := parseFile(p)
		if len(parts) == 0 {
			// The same with a right checksum, to get past it.
			if len(p) <= sha256.Size {
				return
			}
			sum := sha256.Sum256(p[:len(p)-sha256.Size])
			p = append(bytes.Clone(p[:len(p)-sha256.Size]), sum[:]...)
			if parts, err = parseFile(p); len(parts) == 0 {
				return
			}
		}
		again := appendFile(nil, parts[0])
		for _, o := range parts[1:] {
			again = appendFields(again, len(again)-sha256.Size, o)
		}
		if !bytes.HasPrefix(p, again) || err == nil && len(again) < len(p) {
			t.Errorf("accepted %x with error %v, which is written as %x", p, err, again)
		}
		whole := *parts[0]
		whole.changes = parts[1:]
		for _, o := range parts {
			if o.decodedSize > 1<<20 {
				return
			}
		}
		_, _ = whole.unpack()
	})
}
