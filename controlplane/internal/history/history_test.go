package history_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"reverseproxy/controlplane/internal/history"
	fleetv1 "reverseproxy/proto/fleet/v1"
)

func open(t *testing.T, dir string) (*history.Store, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	s, err := history.Open(dir, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return s, &log
}

func entry(revision uint64) history.Entry {
	return history.Entry{
		Revision: revision, Version: fmt.Sprintf("%064x", revision), AcceptedAt: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
		Author: "ann@host", Message: "why – because", Origin: fleetv1.Origin_ORIGIN_ROLLBACK, Restores: 1, Endpoints: 3,
	}
}

func text(revision uint64) []byte { return fmt.Appendf(nil, "port: %d\n", revision) }

func add(t *testing.T, s *history.Store, revisions ...uint64) {
	t.Helper()
	for _, r := range revisions {
		if err := s.Add(entry(r), text(r)); err != nil {
			t.Fatal(err)
		}
	}
}

// check fails unless the store has exactly these revisions with their texts, the
// newest first.
func check(t *testing.T, s *history.Store, revisions ...uint64) {
	t.Helper()
	var got []uint64
	for _, e := range s.List() {
		got = append(got, e.Revision)
		content, err := s.Text(e.Revision)
		if err != nil || string(content) != string(text(e.Revision)) {
			t.Errorf("text of %d: %q, %v", e.Revision, content, err)
		}
	}
	if diff := cmp.Diff(got, revisions); diff != "" {
		t.Errorf("revisions (-got +want):\n%s", diff)
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, f := range files {
		list = append(list, f.Name())
	}
	return list
}

func file(dir string, revision uint64, suffix string) string {
	return filepath.Join(dir, fmt.Sprintf("%016d.%s", revision, suffix))
}

// each runs a test on a store in memory and on one in a directory.
func each(t *testing.T, test func(t *testing.T, dir string)) {
	t.Run("memory", func(t *testing.T) { test(t, "") })
	t.Run("directory", func(t *testing.T) { test(t, t.TempDir()) })
}

func TestWhatIsAddedIsThere(t *testing.T) {
	each(t, func(t *testing.T, dir string) {
		s, _ := open(t, dir)
		if s.Last() != 0 || s.Newest().Revision != 0 {
			t.Error("an empty history has something")
		}
		add(t, s, 1, 2, 7)
		if dir != "" {
			s, _ = open(t, dir)
		}
		check(t, s, 7, 2, 1)
		want := entry(7)
		want.Size = len(text(7))
		if diff := cmp.Diff(s.Newest(), want); diff != "" {
			t.Errorf("newest (-got +want):\n%s", diff)
		}
		for _, revision := range []uint64{0, 3, 8} {
			if _, err := s.Text(revision); err == nil || !strings.Contains(err.Error(), "the history has 1 to 7") {
				t.Errorf("revision %d: %v", revision, err)
			}
		}
		if err := s.Add(entry(7), nil); err == nil {
			t.Error("a revision was added twice")
		}
	})
}

func TestOutcomeTextAndNumberChange(t *testing.T) {
	each(t, func(t *testing.T, dir string) {
		s, _ := open(t, dir)
		add(t, s, 1, 2)
		if err := s.SetOutcome(1, "aborted: slow"); err != nil {
			t.Fatal(err)
		}
		if err := s.SetText(text(9)); err != nil {
			t.Fatal(err)
		}
		if !s.Has(text(9)) || s.Has(text(2)) {
			t.Error("the newest does not have the text that it was given")
		}
		if err := s.Renumber(9); err != nil {
			t.Fatal(err)
		}
		if dir != "" {
			s, _ = open(t, dir)
		}
		check(t, s, 9, 1)
		if e, _, err := s.Get(2); err != nil || e.Revision != 9 {
			t.Errorf("the revision that it had is now %d, %v", e.Revision, err)
		}
		if got := s.List()[1].Outcome; got != "aborted: slow" {
			t.Errorf("outcome %q", got)
		}
		if s.SetOutcome(3, "") == nil || s.Renumber(9) == nil {
			t.Error("what there is not was changed")
		}
		add(t, s, 10)
	})
}

func TestTheOldestGoAfterAHundred(t *testing.T) {
	each(t, func(t *testing.T, dir string) {
		s, _ := open(t, dir)
		for r := range uint64(120) {
			add(t, s, r+1)
		}
		list := s.List()
		if len(list) != 100 || list[0].Revision != 120 || list[99].Revision != 21 {
			t.Errorf("%d entries, %d to %d", len(list), list[99].Revision, list[0].Revision)
		}
		if dir != "" {
			if n := len(names(t, dir)); n != 100 {
				t.Errorf("%d files", n)
			}
		}
	})
}

func TestLargeTextsLeaveRoomForFewer(t *testing.T) {
	each(t, func(t *testing.T, dir string) {
		s, _ := open(t, dir)
		s.Limit(2500)
		noise := make([]byte, 3000) // cannot be compressed
		_, _ = rand.NewChaCha8([32]byte{}).Read(noise)
		for r := range uint64(5) {
			if err := s.Add(entry(r+1), noise[:1000]); err != nil {
				t.Fatal(err)
			}
		}
		if list := s.List(); len(list) != 2 || list[0].Revision != 5 {
			t.Errorf("%d are kept of 1000 bytes each, want 2 in 2500", len(list))
		}
		if err := s.Add(entry(6), noise); err != nil {
			t.Fatal(err)
		}
		if list := s.List(); len(list) != 1 || list[0].Revision != 6 {
			t.Errorf("%d are kept, want the newest whatever its size", len(list))
		}
	})
}

func TestDamagedAndForeignFilesAreNamedAndLeftAlone(t *testing.T) {
	whole := t.TempDir()
	s, _ := open(t, whole)
	add(t, s, 1, 2, 3)
	good, err := os.ReadFile(file(whole, 3, "revision"))
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(good)
	flipped[len(flipped)-9] ^= 1
	for _, test := range []struct {
		name, file string
		content    []byte
		last       uint64 // that is not used again
	}{
		{"empty", file("", 3, "revision"), nil, 3},
		{"cut off", file("", 3, "revision"), good[:len(good)-1], 3},
		{"only a head", file("", 3, "revision"), good[:bytes.IndexByte(good, '\n')+1], 3},
		{"a flipped bit", file("", 3, "revision"), flipped, 3},
		{"something else", file("", 3, "revision"), []byte("port: 8000\n"), 3},
		{"another revision's", file("", 5, "revision"), good, 5},
		{"no number", "latest.revision", good, 2},
		{"a short number", "3.revision", good, 2},
		{"no revision at all", "README", []byte("hello"), 2},
		{"beyond counting", "18446744073709551615.revision", good, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			s, _ := open(t, dir)
			add(t, s, 1, 2)
			if err := os.WriteFile(filepath.Join(dir, test.file), test.content, 0o644); err != nil {
				t.Fatal(err)
			}
			s, log := open(t, dir)
			check(t, s, 2, 1)
			if !strings.Contains(log.String(), test.file) {
				t.Errorf("the log does not name %s:\n%s", test.file, log)
			}
			if s.Last() != test.last {
				t.Errorf("last is %d, want %d", s.Last(), test.last)
			}
			if got, err := os.ReadFile(filepath.Join(dir, test.file)); err != nil || !bytes.Equal(got, test.content) {
				t.Errorf("the file was changed: %v", err)
			}
		})
	}
	// Damage after the start is noticed as well.
	if err := os.WriteFile(file(whole, 3, "revision"), flipped, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Text(3); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("got %v", err)
	}
}

func TestAnEntryCountsWhenItIsCommitted(t *testing.T) {
	each(t, func(t *testing.T, dir string) {
		s, _ := open(t, dir)
		add(t, s, 1)
		d, err := s.Prepare(entry(2), text(2))
		if err != nil {
			t.Fatal(err)
		}
		check(t, s, 1)
		d.Discard()
		if d, err = s.Prepare(entry(2), text(2)); err != nil {
			t.Fatal(err)
		}
		if err := d.Commit(); err != nil {
			t.Fatal(err)
		}
		check(t, s, 2, 1)
	})
}

// After a crash, what is in force says whether a prepared entry was accepted.
func TestResume(t *testing.T) {
	for _, test := range []struct {
		name    string
		version string
		text    []byte
		want    []uint64
	}{
		{"it is in force", entry(2).Version, text(2), []uint64{2, 1}},
		{"another text", entry(2).Version, text(1), []uint64{1}},
		{"a longer text", entry(2).Version, []byte("port: 2 # or so\n"), []uint64{1}},
		{"another version", entry(1).Version, text(2), []uint64{1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			s, _ := open(t, dir)
			add(t, s, 1)
			if _, err := s.Prepare(entry(2), text(2)); err != nil {
				t.Fatal(err)
			}
			s, _ = open(t, dir) // the process has died
			if err := s.Resume(test.version, test.text); err != nil {
				t.Fatal(err)
			}
			check(t, s, test.want...)
			if n := len(names(t, dir)); n != len(test.want) {
				t.Errorf("files %v", names(t, dir))
			}
			add(t, s, 3)
		})
	}
}

func TestLeftoversOfACrashAreRemoved(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	add(t, s, 1, 2)
	for name, content := range map[string]string{
		"." + filepath.Base(file("", 3, "prepared")) + ".123.partial": "half",
		filepath.Base(file("", 1, "prepared")):                        "damaged",
		filepath.Base(file("", 3, "prepared")):                        "damaged",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, _ = open(t, dir)
	check(t, s, 2, 1)
	if n := len(names(t, dir)); n != 2 {
		t.Errorf("files %v", names(t, dir))
	}
	add(t, s, 3)
}

func TestADirectoryThatCannotBeWrittenIsAnError(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "history")
	s, _ := open(t, dir)
	add(t, s, 1)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := s.Add(entry(2), text(2)); err == nil {
		t.Error("an entry was added that is nowhere")
	}
	if s.Newest().Revision != 1 || s.Last() != 1 {
		t.Errorf("newest %d, last %d", s.Newest().Revision, s.Last())
	}
}

// BenchmarkAdd is what keeping a configuration of 100,000 endpoints adds to a change.
func BenchmarkAdd(b *testing.B) {
	s, err := history.Open(b.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	var content []byte
	for i := range 100_000 {
		content = fmt.Appendf(content, "- {from: /e/%d, pool: [\"http://10.1.%d.%d:8080\", \"http://10.2.%d.%d:8080\"]}\n", i, i/250, i%250, i/250, i%250)
	}
	b.SetBytes(int64(len(content)))
	for i := uint64(1); b.Loop(); i++ {
		if err := s.Add(history.Entry{Revision: i, Version: "v"}, content); err != nil {
			b.Fatal(err)
		}
	}
}
