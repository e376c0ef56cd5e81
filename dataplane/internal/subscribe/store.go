package subscribe

import (
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
type Store struct{ dir string }

// NewStore returns a store in dir. The directory is made on the first save.
func NewStore(dir string) *Store { return &Store{dir: dir} }

// Path returns the name of the file.
func (s *Store) Path() string { return filepath.Join(s.dir, fileName) }

// save replaces the stored table.
func (s *Store) save(o *offer) error { return s.replace(s.Path(), appendFile(nil, o)) }

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

// load returns the stored table, or nil when none has been stored yet.
func (s *Store) load() (*offer, error) {
	p, err := read(s.Path(), maxFileSize)
	if p == nil || err != nil {
		return nil, err
	}
	o, err := parseFile(p)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Path(), err)
	}
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

// setRevision gives the stored table a newer revision when it has this version:
// the control plane counts on with the highest revision its data planes know.
func (s *Store) setRevision(version string, revision uint64) error {
	o, err := s.load()
	if err != nil || o == nil || o.version != version || o.revision == revision {
		return err
	}
	o.revision = revision
	return s.save(o)
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
