package reconcile

import (
	"fmt"
	"maps"
	"slices"

	"reverseproxy/controlplane/internal/compile"
	"reverseproxy/controlplane/internal/config"
	"reverseproxy/controlplane/internal/fleet"
	"reverseproxy/controlplane/internal/history"
	fleetv1 "reverseproxy/proto/fleet/v1"
	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// change is a checked configuration that is to become the running one.
type change struct {
	// data is its text, and content what that says.
	data    []byte
	content *routetablev1.RouteTable
	// drained are the backends, by URL, that get no requests whatever it says.
	drained map[string]bool
	// rollout is how it goes through the fleet.
	rollout config.Rollout
	// origin, author, message and restores are for the history.
	origin          fleetv1.Origin
	author, message string
	restores        uint64
	// prepare has the data planes make the table ready before anything is durable, so
	// that all change to it at once; nil: they do not.
	prepare func(t *fleet.Table) error
	// settle makes durable what else a restart must find, such as the file; nil:
	// nothing else.
	settle func() error
}

// unkept is an entry that the history lacks.
type unkept struct {
	entry history.Entry
	data  []byte
}

// accept is the one way by which a configuration becomes the running one. What data
// planes or people get to know of is durable before:
//
//	have it ready everywhere ─> keep the roll-out ─> prepare the entry ─> settle ─> commit the entry ─> publish
//
// The first is for a change that all data planes make at once, the second for one that
// goes through the fleet in steps.
//
// A crash before settle leaves everything as it was, one after it is completed by
// the next start, which finds in the entry what is in force. changed is false when the
// configuration means the same as the running one: there is no new revision then, and
// the newest entry gets the text, so that it is what a rollback brings back.
// An error changes nothing. The turn is held; prepare gives it away.
func (l *Loader) accept(c change) (t *fleet.Table, changed bool, err error) {
	if c.origin == fleetv1.Origin_ORIGIN_DRAIN && l.base != nil {
		return l.drainStaged(c)
	}
	l.keep() // what this one takes the place of, under the number that data planes know
	effective := compile.Drain(c.content, c.drained)
	version := routetable.Version(effective)
	if cur := l.fleet.Desired(); cur != nil && cur.Version == version {
		if c.prepare != nil && l.base != nil {
			return nil, false, errStaged
		}
		return cur, false, l.keepOn(c)
	}
	if l.fleet.Desired() == nil {
		l.resume(version, c.data)
		l.remember(version)
	}
	t, err = fleet.NewTable(effective, version, l.nextRevision(version), l.opts.Now())
	if err != nil {
		return nil, false, err
	}
	s, err := l.stage(c, t)
	if err != nil {
		return nil, false, err
	}
	if c.prepare != nil {
		if err := c.prepare(t); err != nil {
			return nil, false, err
		}
		l.keep() // others have had the turn
		t = t.WithRevision(l.nextRevision(version))
	}
	if s != nil {
		if err := l.keepRollout(s.rollout); err != nil {
			return nil, false, err
		}
	}
	if err := l.record(c, t); err != nil {
		l.logKept(l.keepRollout(l.rollout)) // the one before goes on
		return nil, false, err
	}
	return l.publish(c, t, s), true, nil
}

// keepOn takes in a change after which the same table is desired.
func (l *Loader) keepOn(c change) error {
	if c.settle != nil {
		if err := c.settle(); err != nil {
			return err
		}
	}
	l.keepText(c)
	l.retext(c)
	l.took(c)
	return nil
}

// publish makes a change whose entry is kept the desired table, of all data planes at
// once or in steps.
func (l *Loader) publish(c change, t *fleet.Table, s *stage) *fleet.Table {
	if s != nil {
		l.begin(s, t)
	} else {
		l.supersede(fmt.Sprintf("superseded by revision %d", t.Revision), nil)
		t = l.fleet.Publish(t)
	}
	l.took(c)
	if emptied := compile.Emptied(c.content, t.Proto); len(emptied) > 0 {
		l.opts.Log.Warn("drained backends leave endpoints without any", "endpoints", namesOf(emptied))
	}
	l.keep()
	return l.fleet.Desired()
}

// took notes what counts since the table of a change is the desired one.
func (l *Loader) took(c change) {
	l.content, l.drained = c.content, c.drained
	l.tellDrained()
	l.outdate()
}

// nextRevision returns the revision of a table that is to be published. The first of a
// run continues that of the last one when nothing has changed.
func (l *Loader) nextRevision(version string) uint64 {
	last := max(l.opts.History.Last(), l.counted.Revision)
	if cur := l.fleet.Desired(); cur != nil {
		return max(last, cur.Revision) + 1
	}
	newest := record{Revision: l.opts.History.Newest().Revision, Version: l.opts.History.Newest().Version}
	for _, r := range []record{newest, l.counted} {
		if r.Revision == last && r.Version == version {
			return max(last, 1)
		}
	}
	return last + 1
}

// record makes the change durable. Once it is settled it is, and an edit of the file is
// so from the beginning: those are not refused because the history cannot be written,
// which is tried again.
func (l *Loader) record(c change, t *fleet.Table) error {
	if l.opts.History.Newest().Revision == t.Revision {
		l.keepText(c) // the last run has ended with it
		l.noteKept(nil)
		return nil
	}
	entry := c.entry(t)
	draft, err := l.opts.History.Prepare(entry, c.data)
	if c.settle != nil {
		if err != nil {
			return err
		}
		if err := c.settle(); err != nil {
			draft.Discard()
			return err
		}
	}
	if err == nil {
		err = draft.Commit()
	}
	l.unkept = nil
	if err != nil {
		l.unkept = &unkept{entry, c.data}
	}
	l.noteKept(err)
	return nil
}

// entry returns what the history has of a change that has a table.
func (c change) entry(t *fleet.Table) history.Entry {
	return history.Entry{
		Revision: t.Revision, Version: t.Version, AcceptedAt: t.Accepted, Author: c.author, Message: c.message,
		Origin: c.origin, Restores: c.restores, Drained: slices.Sorted(maps.Keys(c.drained)), Endpoints: len(c.content.GetEndpoints()),
	}
}

// keepText makes a text that means the same as the running one that of the newest
// entry. A failure costs comments and order only.
func (l *Loader) keepText(c change) {
	if l.unkept != nil {
		l.unkept.data = c.data // the newest entry is that of another configuration
		return
	}
	if l.opts.History.Has(c.data) {
		return
	}
	if err := l.opts.History.SetText(c.data); err != nil {
		l.opts.Log.Error("text of the running configuration not kept", "error", err)
	}
}

// keep makes the newest entry that of the running configuration, after a higher
// revision was adopted from a data plane and after the history could not be written.
// It is tried again with the next call. The turn is held.
func (l *Loader) keep() {
	t, newest := l.fleet.Desired(), l.opts.History.Newest()
	if t == nil || newest.Revision == t.Revision {
		return
	}
	var err error
	switch u := l.unkept; {
	case u != nil:
		u.entry.Revision = t.Revision
		err = l.opts.History.Add(u.entry, u.data)
	case newest.Version == t.Version:
		err = l.opts.History.Renumber(t.Revision)
	}
	if err == nil {
		l.unkept = nil
	}
	l.noteKept(err)
}

// noteKept notes whether the history has the running configuration, and logs why not,
// once for each reason.
func (l *Loader) noteKept(err error) {
	text := ""
	l.kept.Set(1)
	if err != nil {
		text = err.Error()
		l.kept.Set(0)
	}
	if text != "" && text != l.keepError {
		l.opts.Log.Error("revision not kept; it is tried again", "error", err)
	}
	l.keepError = text
}

// resume completes or takes back the change that the last run ended in the middle of.
func (l *Loader) resume(version string, data []byte) {
	if err := l.opts.History.Resume(version, data); err != nil {
		l.opts.Log.Error("change at the end of the last run not kept", "error", err)
	}
}

// remember has data planes that come from the newest revision of the last run get a change
// that was made since as what differs from that. Whatever is wrong with it costs bytes only.
func (l *Loader) remember(version string) {
	newest := l.opts.History.Newest()
	if newest.Revision == 0 || newest.Version == version {
		return
	}
	text, err := l.opts.History.Text(newest.Revision)
	var before *routetablev1.RouteTable
	if err == nil {
		before, err = tableOf(newest, text)
	}
	if err != nil {
		l.opts.Log.Warn("data planes are sent whole tables at first: what ran before is not known", "revision", newest.Revision, "error", Shorten(err.Error()))
		return
	}
	l.fleet.Remember(before)
}

// text returns that of the running configuration.
func (l *Loader) text() ([]byte, error) {
	if l.unkept != nil {
		return l.unkept.data, nil
	}
	return l.opts.History.Text(l.opts.History.Newest().Revision)
}
