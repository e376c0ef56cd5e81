package status

import (
	"strings"
	"time"

	fleetv1 "reverseproxy/proto/fleet/v1"
)

// History is the accepted configurations.
type History struct {
	// Kept is whether they outlive a restart of the control plane.
	Kept      bool       `json:"kept"`
	Revisions []Revision `json:"revisions"` // the newest first; never null
}

// Revision is one accepted configuration.
type Revision struct {
	Revision   uint64    `json:"revision"`
	Version    string    `json:"version"`
	AcceptedAt time.Time `json:"acceptedAt"`
	// Author is empty when the file was edited.
	Author  string `json:"author"`
	Message string `json:"message"`
	// Origin is "file", "apply", "rollback", "abort" or "drain"; Restores, after a
	// rollback or an abort, the revision whose content it has.
	Origin   string `json:"origin"`
	Restores uint64 `json:"restores,omitempty"`
	// Size is of its text, in bytes.
	Size      uint64 `json:"size"`
	Endpoints int    `json:"endpoints"`
	// Outcome is what became of its roll-out; empty: it had none, or that one is
	// going on.
	Outcome string `json:"outcome"`
}

// Diff is what differs between two of them.
type Diff struct {
	From    uint64   `json:"from"`
	To      uint64   `json:"to"`
	Changes []Change `json:"changes"` // never null
	// Unified are the differences of the texts, in that format.
	Unified string `json:"unified"`
}

// Change is one difference in words.
type Change struct {
	// Kind is "added", "removed" or "changed".
	Kind string `json:"kind"`
	// Subject is what is concerned, such as "endpoint home", and Detail how, such as
	// "weight 1 → 3".
	Subject string `json:"subject"`
	Detail  string `json:"detail"`
	// Endpoint is the name of the one that is concerned; empty: it is not about one.
	Endpoint string `json:"endpoint"`
}

// HistoryFrom converts the answer of the control plane.
func HistoryFrom(r *fleetv1.HistoryResponse) History {
	h := History{Kept: r.GetKept(), Revisions: make([]Revision, 0, len(r.GetRevisions()))}
	for _, one := range r.GetRevisions() {
		h.Revisions = append(h.Revisions, RevisionFrom(one))
	}
	return h
}

// RevisionFrom converts one revision.
func RevisionFrom(r *fleetv1.Revision) Revision {
	return Revision{
		Revision: r.GetRevision(), Version: r.GetVersion(), AcceptedAt: r.GetAcceptedAt().AsTime().UTC(),
		Author: r.GetAuthor(), Message: r.GetMessage(), Origin: word(r.GetOrigin().String(), "ORIGIN_"), Restores: r.GetRestores(),
		Size: r.GetSize(), Endpoints: int(r.GetEndpoints()), Outcome: r.GetOutcome(),
	}
}

// DiffFrom converts the answer about what differs from a revision.
func DiffFrom(from uint64, r *fleetv1.DiffResponse) Diff {
	return Diff{From: from, To: r.GetTo(), Changes: ChangesFrom(r.GetChanges()), Unified: r.GetUnified()}
}

// ChangesFrom converts differences.
func ChangesFrom(list []*fleetv1.Change) []Change {
	changes := make([]Change, 0, len(list))
	for _, c := range list {
		changes = append(changes, Change{word(c.GetKind().String(), "CHANGE_KIND_"), c.GetSubject(), c.GetDetail(), c.GetEndpoint()})
	}
	return changes
}

// word is the name of a value of the contract, in lower case and without the prefix
// that all of its type have.
func word(name, prefix string) string { return strings.ToLower(strings.TrimPrefix(name, prefix)) }

// JSON returns the document.
func (h History) JSON() []byte { return document(h) }

// JSON returns the document.
func (d Diff) JSON() []byte { return document(d) }

// JSON returns the document.
func (r Revision) JSON() []byte { return document(r) }
