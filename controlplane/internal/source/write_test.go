package source_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"reverseproxy/controlplane/internal/source"
)

// entries returns the names in the directory of the path.
func entries(t *testing.T, path string) []string {
	t.Helper()
	list, err := os.ReadDir(filepath.Dir(path))
	must(t, err)
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

func wantContent(t *testing.T, path, want string) {
	t.Helper()
	if data, err := os.ReadFile(path); err != nil || string(data) != want {
		t.Fatalf("%s has %q, %v; want %q", path, data, err, want)
	}
}

func TestWriteReplacesTheFileAndIsNotReportedBack(t *testing.T) {
	f, path := watched(t)
	must(t, os.Chmod(path, 0o640))
	before, err := os.Open(path) // whoever has it open keeps the whole old content
	must(t, err)
	defer before.Close()
	must(t, f.Write([]byte("new")))
	wantContent(t, path, "new")
	wantNone(t, settle(t, f))
	info, err := os.Stat(path)
	must(t, err)
	if info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, want that of the old file", info.Mode())
	}
	if old, err := source.ReadAll(before, path); err != nil || string(old) != "old" {
		t.Errorf("the old file has %q, %v", old, err)
	}
	if names := entries(t, path); len(names) != 1 {
		t.Errorf("left behind: %v", names)
	}
	// A change after it is one.
	put(t, path, "newer")
	wantOne(t, settle(t, f), "newer")
	// And so is the return of what was there before the write.
	put(t, path, "old")
	wantOne(t, settle(t, f), "old")
}

func TestWriteWinsOverAnEditThatWasNotReadYet(t *testing.T) {
	f, path := watched(t)
	put(t, path, "edited")
	f.Poll()
	must(t, f.Write([]byte("applied")))
	wantNone(t, settle(t, f))
	wantContent(t, path, "applied")
}

func TestWriteKeepsSymbolicLinks(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	target := filepath.Join(other, "real.yaml")
	put(t, target, "old")
	path := filepath.Join(dir, "config.yaml")
	must(t, os.Symlink(target, path))
	f := source.New(path)
	must(t, f.Write([]byte("new")))
	wantContent(t, target, "new")
	if info, err := os.Lstat(path); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is gone: %v, %v", info, err)
	}
}

func TestWriteBringsAVanishedFileBackAndFollowsNoDeadLink(t *testing.T) {
	f, path := watched(t)
	must(t, os.Remove(path))
	must(t, f.Write([]byte("new")))
	wantContent(t, path, "new")

	must(t, os.Remove(path))
	must(t, os.Symlink(filepath.Join(t.TempDir(), "nowhere"), path))
	if err := f.Write([]byte("newer")); err == nil {
		t.Error("a link that leads nowhere was followed")
	}
}

func TestWriteSaysWhatToDoAboutAReadOnlyDirectory(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("left out: root may write everywhere")
	}
	f, path := watched(t)
	must(t, os.Chmod(filepath.Dir(path), 0o555))
	t.Cleanup(func() { _ = os.Chmod(filepath.Dir(path), 0o755) })
	err := f.Write([]byte("new"))
	if err == nil || !strings.Contains(err.Error(), "make the directory writable") {
		t.Errorf("got %v, want an error with the remedy", err)
	}
	wantContent(t, path, "old")
}
