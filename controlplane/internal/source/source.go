// Package source reads the configuration from where its owner keeps it: one
// watched file.
//
// A File is polled by its one user, the reconcile package, which calls Poll at
// a steady interval. Polling a fingerprint of the resolved file notices every
// way of changing a file (in-place writes, renames, symlink swaps at any depth,
// mounts over it), which a notification on the file or its directory does not,
// and costs about 12 µs a time.
//
// What comes out is bytes or an error, never an empty document because the
// file could not be read.
package source

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// MaxSize is the largest file that is read, in bytes.
const MaxSize = 64 << 20

// File is a watched configuration file. It is not for concurrent use.
type File struct {
	path string

	// read is the fingerprint of the state that was last read and reported;
	// the zero value makes the next settled state be read whatever it is.
	read fingerprint
	// seen is the fingerprint at the last poll. A state is read only when two
	// polls in a row have seen it: whoever writes in several steps is given
	// time to finish.
	seen fingerprint
	// sum is the digest of the content that was last reported.
	sum [sha256.Size]byte
	// failed is the error that was last reported, nil after content.
	failed error
}

// New returns the file at path, which may be a symbolic link. Nothing is read
// yet.
func New(path string) *File { return &File{path: path} }

// Path returns the path as it was given to New.
func (f *File) Path() string { return f.path }

// fingerprint tells two states of a path apart without reading the file.
// Inode and ctime catch what size and mtime do not: a file put back with its
// old times.
type fingerprint struct {
	dev, ino     uint64
	size         int64
	mtime, ctime unix.Timespec
	mode         uint32
	err          error // a syscall.Errno, comparable; the path cannot be resolved
}

func (p fingerprint) isZero() bool { return p == fingerprint{} }

// stat describes what the path resolves to now.
func (f *File) stat() fingerprint {
	var st unix.Stat_t
	return fingerprintOf(&st, retry(func() error { return unix.Stat(f.path, &st) }))
}

// fingerprintOf converts the answer of stat or fstat.
func fingerprintOf(st *unix.Stat_t, err error) fingerprint {
	if err != nil {
		return fingerprint{err: err}
	}
	return fingerprint{
		dev: uint64(st.Dev), ino: st.Ino, size: st.Size,
		mtime: st.Mtim, ctime: st.Ctim, mode: uint32(st.Mode),
	}
}

// retry repeats a system call that a signal interrupted, as it may be on
// network file systems.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Poll looks at the file once. It reports changed when the file has a new
// state that was the same at the poll before: then data is the new content, or
// err says why there is none. An unreadable file is reported once, and again
// when it is unreadable for another reason; a file that is back is reported
// even when its content is the old one.
func (f *File) Poll() (data []byte, changed bool, err error) {
	now := f.stat()
	if now == f.read {
		f.seen = now
		return nil, false, nil
	}
	if now != f.seen {
		f.seen = now
		return nil, false, nil
	}
	data, steady, err := f.readOnce(now)
	if !steady {
		return nil, false, nil
	}
	f.read = now
	changed = f.remember(data, err)
	if !changed {
		return nil, false, nil
	}
	return data, true, err
}

// Reload reads the file at once, changed or not, without waiting for it to
// settle. The next Poll that finds it settled reads it again, so that a write
// that was still going on is not missed.
func (f *File) Reload() ([]byte, error) {
	now := f.stat()
	data, _, err := f.readOnce(now)
	f.remember(data, err)
	f.read = fingerprint{}
	f.seen = now
	return data, err
}

// Settled reports whether the state of the path is the one that was last read
// and reported, that is, whether a change is not still on its way.
func (f *File) Settled() bool { return !f.read.isZero() && f.stat() == f.read }

// remember notes what is about to be reported, and says whether it differs from
// what was reported last.
func (f *File) remember(data []byte, err error) (changed bool) {
	if err != nil {
		changed = f.failed == nil || f.failed.Error() != err.Error()
		f.failed = err
		return changed
	}
	sum := sha256.Sum256(data)
	changed = f.failed != nil || sum != f.sum
	f.failed, f.sum = nil, sum
	return changed
}

// readOnce reads the file whose fingerprint is before. It is steady when the
// path still had that fingerprint after the last byte.
func (f *File) readOnce(before fingerprint) (data []byte, steady bool, err error) {
	data, err = f.content(before)
	f.seen = f.stat()
	return data, f.seen == before, err
}

// content returns all bytes of the file whose fingerprint is before.
func (f *File) content(before fingerprint) ([]byte, error) {
	switch {
	case before.err != nil:
		return nil, &fs.PathError{Op: "read", Path: f.path, Err: before.err}
	case before.mode&unix.S_IFMT != unix.S_IFREG:
		// A pipe would block the watcher, and a directory has no content.
		return nil, &fs.PathError{Op: "read", Path: f.path, Err: errors.New("not a regular file")}
	case before.size > MaxSize:
		return nil, tooLarge(f.path)
	}
	file, err := os.Open(f.path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return ReadAll(file, f.path)
}

// ReadAll reads a configuration to its end and refuses one over MaxSize. The
// name is for the error.
func ReadAll(r io.Reader, name string) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, MaxSize+1))
	var path *fs.PathError
	switch {
	case errors.As(err, &path):
		return nil, &fs.PathError{Op: "read", Path: name, Err: path.Err} // which names the file already
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(data) > MaxSize {
		return nil, tooLarge(name)
	}
	return data, nil
}

func tooLarge(name string) error {
	return fmt.Errorf("%s is larger than %d MiB, the most that is read", name, MaxSize>>20)
}
