// Package history keeps what was accepted: revisions with the text of each. They are
// in a directory, a file each, or in memory. What goes in comes from the reconcile
// package, which has every change go through here before anybody gets to know of it.
//
// The number of a revision is in the name of its file. A file is written beside its
// place and renamed, so that a crash leaves it as it was or as it is to be; one that
// is damaged is named in the log and left alone, but its number is not used again.
package history

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"reverseproxy/controlplane/internal/source"
)

// DirName is the name of the directory in --state-dir.
const DirName = "history"

const (
	// maxEntries is how many are kept.
	maxEntries = 100
	// maxBytes bounds the compressed texts of all that are kept; the newest is kept
	// whatever its size.
	maxBytes = 256 << 20
	// maxFormerly is how many former numbers of an entry are kept.
	maxFormerly = 20
	// maxMemory is the same where they are kept in memory.
	maxMemory = 32 << 20
)

const (
	acceptedSuffix = ".revision"
	// preparedSuffix is that of an entry that is part of the history as soon as it is
	// renamed.
	preparedSuffix = ".prepared"
	// nameDigits makes names sort like their numbers.
	nameDigits = 16
)

// Store is a history. Its methods may be called from several goroutines.
type Store struct {
	dir string // "" keeps it in memory
	// limit is how many bytes of compressed texts are kept.
	limit int

	// mu guards the rest, and is held while a file is written: the order of the files
	// is that of the entries.
	mu sync.Mutex
	// kept are the entries in the order of their revisions.
	kept []kept
	// prepared is what a crash has left, until Resume decides about it.
	prepared *kept
	// last is the highest number that was seen, also on a damaged file.
	last uint64
	// held is a revision that is not forgotten, 0 for none.
	held uint64
}

// kept is an entry and where its text is.
type kept struct {
	Entry
	packed []byte // in memory only
	bytes  int    // of the compressed text
}

// Open returns the history in a directory, which it makes if necessary; "" is a new
// one in memory. What is wrong with files is logged.
func Open(dir string, log *slog.Logger) (*Store, error) {
	s := &Store{dir: dir, limit: maxBytes}
	if dir == "" {
		s.limit = maxMemory
		return s, nil
	}
	// A configuration may hold secrets; its file may be less open than --state-dir.
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	if err := source.RemoveAllLeftovers(dir); err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	for _, f := range files { // sorted by name
		s.open(f.Name(), log)
	}
	if p := s.prepared; p != nil && p.Revision <= s.last {
		s.drop()
	}
	return s, nil
}

// open takes in one file of the directory.
func (s *Store) open(name string, log *slog.Logger) {
	path := filepath.Join(s.dir, name)
	revision, suffix := parseName(name)
	if revision == 0 {
		log.Warn("file in the history that does not belong there; it is left alone", "file", path)
		return
	}
	e, packed, err := read(path)
	if err == nil && e.Revision != revision {
		err = fmt.Errorf("it holds revision %d", e.Revision)
	}
	switch {
	case suffix == preparedSuffix && err != nil:
		// It is no part of the history, and nobody was told about it.
		log.Warn("damaged leftover of a change that was not accepted; it is removed", "file", path, "error", err)
		_ = os.Remove(path)
	case suffix == preparedSuffix:
		s.drop()
		s.prepared = &kept{Entry: e, bytes: len(packed)}
	case err != nil:
		log.Error("damaged revision in the history; it is left out", "file", path, "error", err)
		s.last = max(s.last, revision)
	default:
		s.kept = append(s.kept, kept{Entry: e, bytes: len(packed)})
		s.last = max(s.last, revision)
	}
}

// parseName returns the revision in the name of a file, and what kind of file it is; 0
// when it is none of ours.
func parseName(name string) (revision uint64, suffix string) {
	suffix = filepath.Ext(name)
	if suffix != acceptedSuffix && suffix != preparedSuffix {
		return 0, ""
	}
	digits := strings.TrimSuffix(name, suffix)
	revision, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || revision > maxRevision || filepath.Base(path("", revision, suffix)) != name {
		return 0, ""
	}
	return revision, suffix
}

// path returns that of an entry's file.
func path(dir string, revision uint64, suffix string) string {
	return filepath.Join(dir, fmt.Sprintf("%0*d%s", nameDigits, revision, suffix))
}

// read returns an entry with its compressed text.
func read(path string) (Entry, []byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Entry{}, nil, err
	}
	return decode(data)
}

// Kept reports whether the history outlives the process.
func (s *Store) Kept() bool { return s.dir != "" }

// Last returns the highest revision there has ever been, as far as is known. A new
// one has a higher number.
func (s *Store) Last() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// Newest returns the newest entry, the zero value when there is none.
func (s *Store) Newest() Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.kept) == 0 {
		return Entry{}
	}
	return s.kept[len(s.kept)-1].Entry
}

// List returns all entries, the newest first.
func (s *Store) List() []Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Entry, 0, len(s.kept))
	for _, k := range slices.Backward(s.kept) {
		list = append(list, k.Entry)
	}
	return list
}

// UnknownError says that there is no such revision.
type UnknownError struct {
	Revision, Oldest, Newest uint64
}

// Error says which there are.
func (e *UnknownError) Error() string {
	if e.Newest == 0 {
		return fmt.Sprintf("there is no revision %d; the history is empty", e.Revision)
	}
	return fmt.Sprintf("there is no revision %d; the history has %d to %d", e.Revision, e.Oldest, e.Newest)
}

// Get returns an entry with its text. The error is an *UnknownError when there is no
// such revision.
func (s *Store) Get(revision uint64) (Entry, []byte, error) {
	e, packed, err := s.packed(revision)
	if err != nil {
		return Entry{}, nil, err
	}
	text, err := unpack(packed, e.Size)
	if err != nil {
		return Entry{}, nil, fmt.Errorf("revision %d in the history is damaged: %w", revision, err)
	}
	return e, text, nil
}

// Text returns the text of a revision, as Get does.
func (s *Store) Text(revision uint64) ([]byte, error) {
	_, text, err := s.Get(revision)
	return text, err
}

func (s *Store) packed(revision uint64) (Entry, []byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.find(revision)
	if k == nil {
		return Entry{}, nil, s.unknown(revision)
	}
	packed, err := s.textOf(k)
	return k.Entry, packed, err
}

// find returns the entry that has a revision, or has had it, nil when there is none.
// s.mu is held.
func (s *Store) find(revision uint64) *kept {
	i, found := slices.BinarySearchFunc(s.kept, revision, byRevision)
	if !found {
		i = slices.IndexFunc(s.kept, func(k kept) bool { return k.has(revision) })
	}
	if i < 0 {
		return nil
	}
	return &s.kept[i]
}

func byRevision(k kept, revision uint64) int {
	switch {
	case k.Revision < revision:
		return -1
	case k.Revision > revision:
		return 1
	}
	return 0
}

func (s *Store) unknown(revision uint64) error {
	e := &UnknownError{Revision: revision}
	if len(s.kept) > 0 {
		e.Oldest, e.Newest = s.kept[0].Revision, s.kept[len(s.kept)-1].Revision
	}
	return e
}

// textOf returns the compressed text of an entry. s.mu is held.
func (s *Store) textOf(k *kept) ([]byte, error) {
	if s.dir == "" {
		return k.packed, nil
	}
	file := path(s.dir, k.Revision, acceptedSuffix)
	e, packed, err := read(file)
	if err == nil && e.Revision != k.Revision {
		err = fmt.Errorf("it holds revision %d", e.Revision)
	}
	if err != nil {
		return nil, fmt.Errorf("revision %d in the history is damaged (%s): %w", k.Revision, file, err)
	}
	return packed, nil
}

// Add appends an entry, whose revision is higher than all before it. It is durable
// when Add returns.
func (s *Store) Add(e Entry, text []byte) error {
	d, err := s.Prepare(e, text)
	if err != nil {
		return err
	}
	return d.Commit()
}

// Draft is an entry that is not part of the history yet.
type Draft struct {
	store *Store
	kept  kept
}

// Prepare makes an entry durable without making it part of the history: that is what
// Commit does, or Resume after a crash, when what has been done since shows that it was
// accepted.
func (s *Store) Prepare(e Entry, text []byte) (*Draft, error) {
	packed := pack(text)
	e.Size = len(text)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.Revision <= s.last {
		return nil, fmt.Errorf("history: revision %d does not come after %d", e.Revision, s.last)
	}
	d := &Draft{s, kept{Entry: e, bytes: len(packed)}}
	if s.dir == "" {
		d.kept.packed = packed
		return d, nil
	}
	if err := source.Replace(path(s.dir, e.Revision, preparedSuffix), encode(e, packed)); err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	return d, nil
}

// Commit makes the entry part of the history. It is durable when Commit returns.
func (d *Draft) Commit() error {
	d.store.mu.Lock()
	defer d.store.mu.Unlock()
	return d.store.commit(d.kept)
}

// Discard forgets the entry.
func (d *Draft) Discard() {
	if d.store.dir != "" {
		// One that stays is found out by Resume.
		_ = os.Remove(path(d.store.dir, d.kept.Revision, preparedSuffix))
	}
}

// commit appends a prepared entry. s.mu is held.
func (s *Store) commit(k kept) error {
	if s.dir != "" {
		err := source.Rename(path(s.dir, k.Revision, preparedSuffix), path(s.dir, k.Revision, acceptedSuffix))
		if err != nil {
			return fmt.Errorf("history: %w", err)
		}
	}
	s.kept, s.last = append(s.kept, k), k.Revision
	s.trim()
	return nil
}

// Hold keeps a revision from being forgotten, in the place of the one held before; 0 is
// none.
func (s *Store) Hold(revision uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = revision
}

// trim forgets the oldest entries that are too many. s.mu is held.
func (s *Store) trim() {
	total, first := 0, len(s.kept)
	for first > 0 && len(s.kept)-first < maxEntries {
		total += s.kept[first-1].bytes
		if total > s.limit && first < len(s.kept) {
			break
		}
		first--
	}
	rest := s.kept[first:]
	held := slices.IndexFunc(s.kept[:first], func(k kept) bool { return k.has(s.held) })
	for i, k := range s.kept[:first] {
		if s.dir != "" && i != held {
			// One that cannot be removed is tried again after the next start.
			_ = os.Remove(path(s.dir, k.Revision, acceptedSuffix))
		}
	}
	if held >= 0 {
		rest = slices.Insert(rest, 0, s.kept[held])
	}
	s.kept = slices.Clone(rest)
}

// Resume decides about an entry that was prepared and not committed when the last run
// ended: it was accepted if what is in force now has its version and its text.
func (s *Store) Resume(version string, text []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.prepared
	if p == nil {
		return nil
	}
	if p.Version != version || p.Size != len(text) || !s.prepares(text) {
		s.drop()
		return nil
	}
	s.prepared = nil
	return s.commit(*p)
}

// prepares reports whether a text is that of the prepared entry. s.mu is held.
func (s *Store) prepares(text []byte) bool {
	_, packed, err := read(path(s.dir, s.prepared.Revision, preparedSuffix))
	if err != nil {
		return false
	}
	prepared, err := unpack(packed, s.prepared.Size)
	return err == nil && string(prepared) == string(text)
}

// drop forgets the prepared entry, if there is one.
func (s *Store) drop() {
	if s.prepared != nil {
		_ = os.Remove(path(s.dir, s.prepared.Revision, preparedSuffix))
		s.prepared = nil
	}
}

// SetOutcome notes what became of a revision's roll-out.
func (s *Store) SetOutcome(revision uint64, outcome string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.find(revision)
	if k == nil {
		return s.unknown(revision)
	}
	packed, err := s.textOf(k)
	if err != nil {
		return err
	}
	e := k.Entry
	e.Outcome = outcome
	return s.rewrite(k, e, packed)
}

// SetText gives the newest entry another text that means the same.
func (s *Store) SetText(text []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.kept) == 0 {
		return errors.New("history: it is empty")
	}
	k := &s.kept[len(s.kept)-1]
	e := k.Entry
	e.Size = len(text)
	return s.rewrite(k, e, pack(text))
}

// Renumber gives the newest entry a higher revision: the fleet knows the configuration
// by that one from another control plane. Whoever asks for the old one finds it still.
func (s *Store) Renumber(revision uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.kept) == 0 || revision <= s.last {
		return fmt.Errorf("history: revision %d does not come after %d", revision, s.last)
	}
	k := &s.kept[len(s.kept)-1]
	packed, err := s.textOf(k)
	if err != nil {
		return err
	}
	old, e := k.Revision, k.Entry
	e.Revision = revision
	e.Formerly = append(slices.Clone(e.Formerly[max(0, len(e.Formerly)-maxFormerly+1):]), old)
	if err := s.rewrite(k, e, packed); err != nil {
		return err
	}
	s.last = revision
	if s.dir != "" {
		_ = os.Remove(path(s.dir, old, acceptedSuffix)) // the same once more, if it stays
	}
	return nil
}

// rewrite puts another entry, and text, in the place of one. s.mu is held.
func (s *Store) rewrite(k *kept, e Entry, packed []byte) error {
	next := kept{Entry: e, bytes: len(packed)}
	if s.dir == "" {
		next.packed = packed
	} else if err := source.Replace(path(s.dir, e.Revision, acceptedSuffix), encode(e, packed)); err != nil {
		return fmt.Errorf("history: %w", err)
	}
	*k = next
	return nil
}

// Has reports whether a text is that of the newest entry.
func (s *Store) Has(text []byte) bool {
	newest := s.Newest()
	if newest.Size != len(text) {
		return false
	}
	kept, err := s.Text(newest.Revision)
	return err == nil && string(kept) == string(text)
}
