package reconcile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"reverseproxy/controlplane/internal/source"
)

// StateFileName is the name of the file in --state-dir.
const StateFileName = "revision.json"

// record is what a control plane remembers over restarts: the number of the
// last change, and the content it stood for.
type record struct {
	Revision uint64 `json:"revision"`
	Version  string `json:"version"`
}

// ReadRevision returns version and revision of the last run; a missing file is
// a first run. A damaged one is an error, with which revisions start again.
func ReadRevision(path string) (version string, revision uint64, err error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", 0, nil
	}
	if err != nil {
		return "", 0, err
	}
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return "", 0, fmt.Errorf("revision file %s: %w", path, err)
	}
	return r.Version, r.Revision, nil
}

// keepRevision writes the state file when the desired revision is not the one
// in it: after a change, and after a higher revision was adopted from a data
// plane. A failure is logged once; the next call tries again. The turn is held.
func (l *Loader) keepRevision() {
	t := l.fleet.Desired()
	if l.opts.StateFile == "" || t == nil {
		return
	}
	now := record{Revision: t.Revision, Version: t.Version}
	if now == l.kept {
		return
	}
	data, err := json.Marshal(now)
	if err == nil {
		err = source.Replace(l.opts.StateFile, append(data, '\n'))
	}
	if err != nil {
		if !l.keepFailed {
			l.opts.Log.Error("revision not kept", "error", err)
		}
		l.keepFailed = true
		return
	}
	l.kept, l.keepFailed = now, false
}
