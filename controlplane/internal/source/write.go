package source

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// tempSuffix ends the names of temporary files, so that those of a crash can be told
// from files of other people.
const tempSuffix = ".partial"

// Write replaces the content of the file: a reader sees the old content or the
// new one, whole, also after a crash. A symbolic link stays one; the file it
// leads to is replaced. Mode is kept, owner where the process may set it. Poll
// does not report the written content as a change.
//
// There is no falling back to writing in place: a crash or a full disk in the
// middle of that leaves half a configuration. Where the file cannot be replaced
// the error says what to do.
func (f *File) Write(data []byte) error {
	if err := Replace(f.path, data); err != nil {
		return err
	}
	f.sum, f.failed = sha256.Sum256(data), nil
	f.read = fingerprint{}
	f.seen = f.stat()
	return nil
}

// Replace puts a new file with the data in the place of the one that path leads
// to, in one step, as File.Write describes. The path need not exist yet.
func Replace(path string, data []byte) error {
	target, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		// A file that has vanished is created again; a link that leads nowhere
		// is not followed to places its owner may not have meant.
		if _, lerr := os.Lstat(path); errors.Is(lerr, fs.ErrNotExist) {
			target, err = path, nil
		}
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	dir := filepath.Dir(target)
	temp, err := os.CreateTemp(dir, "."+filepath.Base(target)+".*"+tempSuffix)
	if err != nil {
		return fmt.Errorf("write %s: its directory %s lets no new file be made, so it cannot be replaced in one step; "+
			"make the directory writable for the control plane, or change the file where it comes from: %w", path, dir, err)
	}
	if err := fill(temp, target, data); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(temp.Name()))
	}
	if err := os.Rename(temp.Name(), target); err != nil {
		removed := os.Remove(temp.Name())
		if errors.Is(err, syscall.EBUSY) || errors.Is(err, syscall.EXDEV) {
			err = fmt.Errorf("it is mounted by itself, so it cannot be replaced in one step; "+
				"mount its directory instead, or change the file where it comes from: %w", err)
		}
		return errors.Join(fmt.Errorf("write %s: %w", path, err), removed)
	}
	return syncDir(dir)
}

// Rename gives a file another name in the same directory, also after a crash.
func Rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncDir(filepath.Dir(to))
}

// RemoveLeftovers removes the temporary files that crashes in Replace have left beside
// the file that path leads to.
func RemoveLeftovers(path string) error {
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		target = path
	}
	return removeLeftovers(filepath.Dir(target), "."+filepath.Base(target)+".")
}

// RemoveAllLeftovers does the same for all files of a directory.
func RemoveAllLeftovers(dir string) error { return removeLeftovers(dir, ".") }

func removeLeftovers(dir, prefix string) error {
	files, err := os.ReadDir(dir)
	for _, f := range files {
		if strings.HasPrefix(f.Name(), prefix) && strings.HasSuffix(f.Name(), tempSuffix) {
			err = errors.Join(err, os.Remove(filepath.Join(dir, f.Name())))
		}
	}
	return err
}

// fill writes and closes the temporary file, with mode and owner of the file it
// is going to replace.
func fill(temp *os.File, target string, data []byte) error {
	_, err := temp.Write(data)
	if err == nil {
		err = copyAttributes(temp, target)
	}
	if err == nil {
		err = temp.Sync()
	}
	return errors.Join(err, temp.Close())
}

// copyAttributes gives the temporary file mode and owner of the target.
func copyAttributes(temp *os.File, target string) error {
	mode := fs.FileMode(0o644)
	if info, err := os.Stat(target); err == nil {
		mode = info.Mode().Perm()
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			// Only root may give files away; the content matters more.
			_ = temp.Chown(int(st.Uid), int(st.Gid))
		}
	}
	return temp.Chmod(mode)
}

// syncDir makes the rename survive a crash.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		err = nil // some file systems cannot, and rename needs no help there
	}
	return errors.Join(err, d.Close())
}
