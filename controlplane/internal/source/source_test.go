package source_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"reverseproxy/controlplane/internal/source"
)

// observed is what polling a file brought to light.
type observed struct {
	data string
	err  error
}

// settle polls until nothing is pending and returns what was reported. Between
// two polls no time has to pass, as a state counts as settled when two polls in
// a row have seen it; but file systems note times in steps of some milliseconds,
// which in earnest are shorter than the polling interval, so the next step is
// waited for at the end.
func settle(t *testing.T, f *source.File) []observed {
	t.Helper()
	defer nextTick(t)
	var reports []observed
	for range 4 {
		if data, changed, err := f.Poll(); changed {
			reports = append(reports, observed{string(data), err})
		}
	}
	return reports
}

// nextTick waits until the file system's clock has moved on.
func nextTick(t *testing.T) {
	t.Helper()
	scratch := filepath.Join(t.TempDir(), "tick")
	touched := func() time.Time {
		must(t, os.WriteFile(scratch, []byte("tick"), 0o600))
		info, err := os.Stat(scratch)
		must(t, err)
		return info.ModTime()
	}
	for before := touched(); touched().Equal(before); {
		runtime.Gosched()
	}
}

// wantOne fails unless exactly the content was reported.
func wantOne(t *testing.T, got []observed, want string) {
	t.Helper()
	if len(got) != 1 || got[0].err != nil || got[0].data != want {
		t.Fatalf("got %v, want one report of %q", got, want)
	}
}

func wantNone(t *testing.T, got []observed) {
	t.Helper()
	if len(got) != 0 {
		t.Fatalf("got %v, want no report", got)
	}
}

func put(t *testing.T, path, data string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// watched returns a file with the content "old", read.
func watched(t *testing.T) (f *source.File, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "config.yaml")
	put(t, path, "old")
	f = source.New(path)
	if data, err := f.Reload(); err != nil || string(data) != "old" {
		t.Fatalf("first read: %q, %v", data, err)
	}
	wantNone(t, settle(t, f))
	return f, path
}

// Each way in which people and tools change a file must be noticed.
func TestEveryWayOfChangingTheFileIsNoticed(t *testing.T) {
	ways := []struct {
		name   string
		change func(t *testing.T, path string)
	}{
		{"written in place", func(t *testing.T, path string) { put(t, path, "new") }},
		{"appended to and cut", func(t *testing.T, path string) {
			put(t, path, "newer")
			must(t, os.Truncate(path, 3))
		}},
		{"renamed over", func(t *testing.T, path string) {
			put(t, path+".tmp", "new")
			must(t, os.Rename(path+".tmp", path))
		}},
		{"saved by an editor that keeps a backup", func(t *testing.T, path string) {
			must(t, os.Rename(path, path+"~"))
			put(t, path, "new")
			must(t, os.Remove(path+"~"))
		}},
		{"removed and created", func(t *testing.T, path string) {
			must(t, os.Remove(path))
			put(t, path, "new")
		}},
		{"same size and times, in place", func(t *testing.T, path string) {
			info, err := os.Stat(path)
			must(t, err)
			put(t, path, "new")
			must(t, os.Chtimes(path, info.ModTime(), info.ModTime()))
		}},
		{"same size and times, renamed over", func(t *testing.T, path string) {
			info, err := os.Stat(path)
			must(t, err)
			put(t, path+".tmp", "new")
			must(t, os.Chtimes(path+".tmp", info.ModTime(), info.ModTime()))
			must(t, os.Rename(path+".tmp", path))
		}},
		{"replaced by a symbolic link", func(t *testing.T, path string) {
			put(t, path+".real", "new")
			must(t, os.Remove(path))
			must(t, os.Symlink(path+".real", path))
		}},
		{"replaced by a hard link", func(t *testing.T, path string) {
			put(t, path+".real", "new")
			must(t, os.Remove(path))
			must(t, os.Link(path+".real", path))
		}},
	}
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			f, path := watched(t)
			way.change(t, path)
			wantOne(t, settle(t, f), "new")
			wantNone(t, settle(t, f))
		})
	}

	t.Run("sed -i twice", func(t *testing.T) {
		sed, err := exec.LookPath("sed")
		if err != nil {
			t.Skip("left out: there is no sed")
		}
		f, path := watched(t)
		for _, change := range []struct{ script, want string }{{"s/old/mid/", "mid"}, {"s/mid/new/", "new"}} {
			if out, err := exec.Command(sed, "-i", change.script, path).CombinedOutput(); err != nil {
				t.Skipf("left out: sed -i: %v: %s", err, out) // BSD sed wants an argument
			}
			wantOne(t, settle(t, f), change.want)
		}
	})
}

// Configurations behind symbolic links change without the path itself changing.
func TestChangesBehindSymbolicLinksAreNoticed(t *testing.T) {
	swap := func(t *testing.T, target, link string) {
		t.Helper()
		must(t, os.Symlink(target, link+".tmp"))
		must(t, os.Rename(link+".tmp", link))
	}
	t.Run("ConfigMap: the directory link ..data is swapped", func(t *testing.T) {
		dir := t.TempDir()
		for name, content := range map[string]string{"..2026_1": "old", "..2026_2": "new"} {
			must(t, os.Mkdir(filepath.Join(dir, name), 0o755))
			put(t, filepath.Join(dir, name, "config.yaml"), content)
		}
		must(t, os.Symlink("..2026_1", filepath.Join(dir, "..data")))
		path := filepath.Join(dir, "config.yaml")
		must(t, os.Symlink("..data/config.yaml", path))
		f := source.New(path)
		wantOne(t, settle(t, f), "old")
		swap(t, "..2026_2", filepath.Join(dir, "..data"))
		must(t, os.RemoveAll(filepath.Join(dir, "..2026_1")))
		wantOne(t, settle(t, f), "new")
	})
	t.Run("the link is swapped in its directory", func(t *testing.T) {
		dir := t.TempDir()
		put(t, filepath.Join(dir, "a"), "old")
		put(t, filepath.Join(dir, "b"), "new")
		path := filepath.Join(dir, "config.yaml")
		must(t, os.Symlink("a", path))
		f := source.New(path)
		wantOne(t, settle(t, f), "old")
		swap(t, "b", path)
		wantOne(t, settle(t, f), "new")
	})
	t.Run("a link in another directory is swapped", func(t *testing.T) {
		dir, other := t.TempDir(), t.TempDir()
		put(t, filepath.Join(other, "a"), "old")
		put(t, filepath.Join(other, "b"), "new")
		must(t, os.Symlink("a", filepath.Join(other, "current")))
		path := filepath.Join(dir, "config.yaml")
		must(t, os.Symlink(filepath.Join(other, "current"), path))
		f := source.New(path)
		wantOne(t, settle(t, f), "old")
		swap(t, "b", filepath.Join(other, "current"))
		wantOne(t, settle(t, f), "new")
	})
	t.Run("the file behind the link is written in place", func(t *testing.T) {
		dir := t.TempDir()
		put(t, filepath.Join(dir, "a"), "old")
		path := filepath.Join(dir, "config.yaml")
		must(t, os.Symlink("a", path))
		f := source.New(path)
		wantOne(t, settle(t, f), "old")
		put(t, filepath.Join(dir, "a"), "new")
		wantOne(t, settle(t, f), "new")
	})
}

func TestAFileThatIsBeingWrittenIsNotRead(t *testing.T) {
	f, path := watched(t)
	var content bytes.Buffer
	for range 5 {
		content.WriteString("half a line, then more")
		put(t, path, content.String())
		if data, changed, err := f.Poll(); changed {
			t.Fatalf("read %q, %v in the middle of a write", data, err)
		}
	}
	wantOne(t, settle(t, f), content.String())
}

func TestATouchedFileIsNoChange(t *testing.T) {
	f, path := watched(t)
	now := time.Now().Add(time.Hour)
	must(t, os.Chtimes(path, now, now))
	wantNone(t, settle(t, f))
	must(t, os.Chmod(path, 0o600))
	wantNone(t, settle(t, f))
}

func TestAVanishedFileIsReportedOnceAndItsReturnAlways(t *testing.T) {
	f, path := watched(t)
	must(t, os.Remove(path))
	if _, changed, _ := f.Poll(); changed {
		t.Fatal("an absence between removing and creating was reported")
	}
	got := settle(t, f)
	if len(got) != 1 || !errors.Is(got[0].err, fs.ErrNotExist) || !strings.Contains(got[0].err.Error(), path) {
		t.Fatalf("got %v, want one report of a missing file that names it", got)
	}
	wantNone(t, settle(t, f))

	// Another reason is news, and so is the old content.
	must(t, os.Mkdir(path, 0o755))
	if got := settle(t, f); len(got) != 1 || got[0].err == nil || !strings.Contains(got[0].err.Error(), "not a regular file") {
		t.Fatalf("got %v, want one report of a directory", got)
	}
	must(t, os.Remove(path))
	put(t, path, "old")
	wantOne(t, settle(t, f), "old")
}

func TestAnUnreadableFileIsAnError(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("left out: root may read everything")
	}
	f, path := watched(t)
	put(t, path, "new")
	must(t, os.Chmod(path, 0))
	if got := settle(t, f); len(got) != 1 || !errors.Is(got[0].err, fs.ErrPermission) {
		t.Fatalf("got %v, want one report of missing permission", got)
	}
	must(t, os.Chmod(path, 0o644))
	wantOne(t, settle(t, f), "new")
}

func TestAPipeDoesNotBlockTheWatcher(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	must(t, syscall.Mkfifo(path, 0o644))
	if _, err := source.New(path).Reload(); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("got %v, want an error", err)
	}
}

func TestTheLargestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	put(t, path, "")
	must(t, os.Truncate(path, source.MaxSize+1))
	if _, err := source.New(path).Reload(); err == nil || !strings.Contains(err.Error(), "larger than 64 MiB") {
		t.Errorf("got %v, want an error", err)
	}
	must(t, os.Truncate(path, source.MaxSize))
	if data, err := source.New(path).Reload(); err != nil || len(data) != source.MaxSize {
		t.Errorf("got %d bytes, %v", len(data), err)
	}
}

func TestReloadReadsAtOnceAndMissesNothingAfterwards(t *testing.T) {
	f, path := watched(t)
	put(t, path, "half")
	if data, err := f.Reload(); err != nil || string(data) != "half" {
		t.Fatalf("got %q, %v", data, err)
	}
	// Written within the same tick of the file system's clock, same size: only
	// reading it again can tell.
	info, err := os.Stat(path)
	must(t, err)
	put(t, path, "full")
	must(t, os.Chtimes(path, info.ModTime(), info.ModTime()))
	wantOne(t, settle(t, f), "full")
}

func TestSettledTellsWhetherAChangeIsOnItsWay(t *testing.T) {
	f, path := watched(t)
	if !f.Settled() {
		t.Error("not settled at rest")
	}
	put(t, path, "new")
	if f.Settled() {
		t.Error("settled with an unread change")
	}
	wantOne(t, settle(t, f), "new")
	if !f.Settled() {
		t.Error("not settled after reading")
	}
}
