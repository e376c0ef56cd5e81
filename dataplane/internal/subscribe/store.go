package subscribe

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// The files inside the state directory: the stored route table, and the place among
// the other data planes, as a decimal number.
const (
	fileName      = "routetable.bin"
	placeFileName = "place"
)

// Store keeps the newest applied route table on disk, and the data plane's place among
// the others, so that a data plane can start while no control plane answers. One process owns a directory. It is
// used by one goroutine at a time.
type Store struct {
	dir  string
	file contents
}

// contents is what is known of the file. The zero value is nothing: no change can be put
// behind it.
type contents struct {
	version  string
	revision uint64
	payload  int               // bytes of the whole table
	changes  int               // behind it
	changed  int               // bytes of their payloads
	size     int64             // of the file
	sum      [sha256.Size]byte // at its end
}

// NewStore returns a store in dir. The directory is made on the first save.
func NewStore(dir string) *Store { return &Store{dir: dir} }

// Path returns the name of the file.
func (s *Store) Path() string { return filepath.Join(s.dir, fileName) }

// save replaces the stored table by a whole one.
func (s *Store) save(o *offer) error {
	data := appendFile(nil, o)
	s.file = contents{}
	if err := s.replace(s.Path(), data); err != nil {
		return err
	}
	s.file = contentsOf(data, o)
	return nil
}

// contentsOf returns what is to be known of a file, p, with these parts.
func contentsOf(p []byte, parts ...*offer) contents {
	last := parts[len(parts)-1]
	c := contents{
		version: last.version, revision: last.revision,
		payload: len(parts[0].data), changes: len(parts) - 1,
		size: int64(len(p)), sum: checksum(p),
	}
	for _, o := range parts[1:] {
		c.changed += len(o.data)
	}
	return c
}

// checksum returns the one at the end of p.
func checksum(p []byte) [sha256.Size]byte { return [sha256.Size]byte(p[len(p)-sha256.Size:]) }

// change puts a delta behind the stored table, unless nothing would change. A crash at any
// moment leaves a file of which the part before can be read. After an error the file is
// not known any more: only a whole table can be stored.
func (s *Store) change(o *offer) error {
	before := s.file
	switch {
	case before.version == "" || before.version != o.base:
		return fmt.Errorf("the stored version is %q, the delta starts from %s", before.version, o.base)
	case before.version == o.version && before.revision == o.revision:
		return nil
	case before.changes == maxChanges || before.changed+len(o.data) > before.payload/changesPart:
		return errors.New("there is no room for another change")
	}
	s.file = contents{}
	data := appendFields(before.sum[:], 0, o)[sha256.Size:]
	if err := appendTo(s.Path(), before.size, data); err != nil {
		return fmt.Errorf("append to %s: %w", fileName, err)
	}
	s.file = contents{
		version: o.version, revision: o.revision,
		payload: before.payload, changes: before.changes + 1, changed: before.changed + len(o.data),
		size: before.size + int64(len(data)), sum: checksum(data),
	}
	return nil
}

// appendTo appends to a file that has a size, and to no other.
func appendTo(path string, size int64, data []byte) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() != size {
		return errors.New("somebody else has changed it")
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// replace replaces a file so that a crash at any moment leaves the old one or the new
// one.
func (s *Store) replace(path string, data []byte) (err error) {
	// The table names internal addresses: nobody else's business.
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("make the state directory: %w", err)
	}
	temp := path + ".tmp"
	// A leftover of a crash, perhaps another user's link: never write through it.
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove an old temporary file: %w", err)
	}
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("create a temporary file: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreNotExist(os.Remove(temp)))
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	if err := os.Rename(temp, path); err != nil {
		return fmt.Errorf("put %s in place: %w", filepath.Base(path), err)
	}
	if err := syncDir(s.dir); err != nil {
		return fmt.Errorf("sync the state directory: %w", err)
	}
	return nil
}

// load returns the stored table, or nil when none has been stored yet. With an error, it
// returns the newest one before what is wrong with the file, if there is one.
func (s *Store) load() (*offer, error) {
	s.file = contents{}
	p, err := read(s.Path(), maxFileSize)
	if p == nil || err != nil {
		return nil, err
	}
	parts, err := parseFile(p)
	var o *offer
	if n := len(parts); n > 0 {
		stored := *parts[0]
		stored.version, stored.revision, stored.changes = parts[n-1].version, parts[n-1].revision, parts[1:]
		o = &stored
	}
	if err != nil {
		return o, fmt.Errorf("%s: %w", s.Path(), err)
	}
	s.file = contentsOf(p, parts...)
	return o, nil
}

// read returns the content of a file of at most so many bytes, nil when there is none.
func read(path string, most int) ([]byte, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		// Opening a pipe would wait for ever.
		return nil, fmt.Errorf("%s: %w", path, errForeign)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p, err := io.ReadAll(io.LimitReader(f, int64(most)+1))
	if err != nil {
		return nil, err
	}
	if len(p) > most {
		return nil, fmt.Errorf("%s: larger than %d bytes: %w", path, most, errForeign)
	}
	return p, nil
}

// savePlace replaces the stored place.
func (s *Store) savePlace(place uint32) error {
	return s.replace(filepath.Join(s.dir, placeFileName), fmt.Appendln(nil, place))
}

// loadPlace returns the stored place, 0 when none has been stored yet.
func (s *Store) loadPlace() (uint32, error) {
	const most = len("4294967295\n")
	path := filepath.Join(s.dir, placeFileName)
	p, err := read(path, most)
	if p == nil || err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(strings.TrimSuffix(string(p), "\n"), 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%s: not a number: %q", path, p)
	}
	return uint32(n), nil
}

// syncDir makes a rename last over a crash.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func ignoreNotExist(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
