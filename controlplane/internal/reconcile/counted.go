package reconcile

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
)

// RevisionFileName is the name of the file in --state-dir in which releases without a
// history have kept the revision.
const RevisionFileName = "revision.json"

// record is the number of the last change, and the version that it led to.
type record struct {
	Revision uint64 `json:"revision"`
	Version  string `json:"version"`
}

// readCounted reads the revision of an earlier release, if it has left one.
func (l *Loader) readCounted() {
	if l.opts.RevisionFile == "" {
		return
	}
	data, err := os.ReadFile(l.opts.RevisionFile)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err == nil {
		err = json.Unmarshal(data, &l.counted)
	}
	if err != nil {
		l.counted = record{}
		l.opts.Log.Warn("revision of the last run is not known", "file", l.opts.RevisionFile, "error", err)
	}
}

// removeCounted removes the file of an earlier release once the history goes on from
// it.
func (l *Loader) removeCounted() {
	if l.opts.RevisionFile == "" || l.unkept != nil {
		return
	}
	if err := os.Remove(l.opts.RevisionFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.opts.Log.Warn("revision of an earlier release not removed", "error", err)
	}
}
