package source_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"reverseproxy/controlplane/internal/source"
)

// bind mounts source over target, or leaves the test out.
func bind(t *testing.T, from, to string) {
	t.Helper()
	if err := syscall.Mount(from, to, "", syscall.MS_BIND, ""); err != nil {
		t.Skipf("left out: a bind mount is not allowed here: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(to, syscall.MNT_DETACH) })
}

func TestBindMounts(t *testing.T) {
	t.Run("a file mounted over the file is noticed", func(t *testing.T) {
		f, path := watched(t)
		other := filepath.Join(t.TempDir(), "other")
		put(t, other, "new")
		bind(t, other, path)
		wantOne(t, settle(t, f), "new")
		put(t, other, "newer")
		wantOne(t, settle(t, f), "newer")
	})
	t.Run("a file mounted by itself cannot be replaced", func(t *testing.T) {
		dir := t.TempDir()
		real, path := filepath.Join(dir, "real"), filepath.Join(dir, "config.yaml")
		put(t, real, "old")
		put(t, path, "")
		bind(t, real, path)
		err := source.New(path).Write([]byte("new"))
		if err == nil || !strings.Contains(err.Error(), "mount its directory instead") {
			t.Errorf("got %v, want an error with the remedy", err)
		}
		wantContent(t, path, "old")
		if names := entries(t, path); len(names) != 2 {
			t.Errorf("left behind: %v", names)
		}
	})
	t.Run("a directory mounted read-only", func(t *testing.T) {
		dir := t.TempDir()
		put(t, filepath.Join(dir, "config.yaml"), "old")
		bind(t, dir, dir)
		if err := syscall.Mount("", dir, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
			t.Skipf("left out: remounting is not allowed here: %v", err)
		}
		path := filepath.Join(dir, "config.yaml")
		err := source.New(path).Write([]byte("new"))
		if err == nil || !strings.Contains(err.Error(), "make the directory writable") || !os.IsPermission(err) && !strings.Contains(err.Error(), "read-only") {
			t.Errorf("got %v, want an error with the remedy", err)
		}
	})
}
