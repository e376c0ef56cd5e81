package serve_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"reverseproxy/controlplane/internal/fleet/fleettest"
	"reverseproxy/controlplane/internal/history"
	"reverseproxy/controlplane/internal/serve"
	fleetv1 "reverseproxy/proto/fleet/v1"
	"reverseproxy/proto/identity"
	"reverseproxy/proto/identity/identitytest"
)

func (r *running) rollback(t *testing.T, request *fleetv1.RollbackRequest) *fleetv1.RollbackResponse {
	t.Helper()
	a, err := r.fleet.Rollback(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// refused fails unless an error has the code and the text.
func refused(t *testing.T, err error, code codes.Code, want string) {
	t.Helper()
	if status.Code(err) != code || !strings.Contains(fmt.Sprint(err), want) {
		t.Errorf("got %v, want %s with %q", err, code, want)
	}
}

func TestRollback(t *testing.T) {
	file, dir := newFile(t, text(2, "# the first")), t.TempDir()
	r := start(t, file, withState(dir))
	dp := fleettest.Start(t, r.server, "a", nil, fleettest.Apply)
	first := r.status(t).GetVersion()
	apply(t, r, text(3))
	a := r.rollback(t, &fleetv1.RollbackRequest{Revision: 1, Author: "ann@host", Message: "3 was slow"})
	if a.GetRevision() != 3 || a.GetVersion() != first || !a.GetChanged() || !a.GetKept() || len(a.GetProblems()) > 0 {
		t.Errorf("got %v", a)
	}
	if data, err := os.ReadFile(file); err != nil || string(data) != text(2, "# the first") {
		t.Errorf("the file has %q, %v", data, err)
	}
	r.wait(t, "the data plane runs it", func(s *fleetv1.StatusResponse) bool {
		return len(s.GetDataplanes()) == 1 && s.GetDataplanes()[0].GetVersion() == first && s.GetDataplanes()[0].GetRevision() == 3
	})
	if tables := dp.Tables(); len(tables[len(tables)-1].GetEndpoints()) != 2 {
		t.Errorf("the data plane has %v", tables[len(tables)-1])
	}
	h, err := r.fleet.History(t.Context(), &fleetv1.HistoryRequest{Limit: 1})
	if err != nil || len(h.GetRevisions()) != 1 || !h.GetKept() {
		t.Fatalf("got %v, %v", h, err)
	}
	if e := h.GetRevisions()[0]; e.GetRevision() != 3 || e.GetOrigin() != fleetv1.Origin_ORIGIN_ROLLBACK || e.GetRestores() != 1 ||
		e.GetAuthor() != "ann@host" || e.GetMessage() != "3 was slow" || e.GetEndpoints() != 2 {
		t.Errorf("got %v", e)
	}
	if a := r.rollback(t, &fleetv1.RollbackRequest{Revision: 1}); a.GetChanged() || a.GetRevision() != 3 {
		t.Errorf("once more: %v", a)
	}
	_, err = r.fleet.Rollback(t.Context(), &fleetv1.RollbackRequest{Revision: 9})
	refused(t, err, codes.NotFound, "there is no revision 9; the history has 1 to 3")
}

func TestARollbackIsCheckedByTheRulesOfToday(t *testing.T) {
	file, dir := newFile(t, text(2)), t.TempDir()
	s, err := history.Open(filepath.Join(dir, history.DirName), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Add(history.Entry{Revision: 1, Version: "a"}, []byte("port: 8000\nendpoints: {}\n")); err != nil {
		t.Fatal(err)
	}
	if err := s.Add(history.Entry{Revision: 2, Version: "b"}, []byte(text(12))); err != nil {
		t.Fatal(err)
	}
	r := start(t, file, withState(dir))
	before := r.status(t)
	a := r.rollback(t, &fleetv1.RollbackRequest{Revision: 1})
	if len(a.GetProblems()) != 1 || !strings.HasPrefix(a.GetProblems()[0], "revision 1:2:12: ") {
		t.Errorf("got %v", a)
	}
	if s := r.status(t); s.GetRevision() != before.GetRevision() || s.GetVersion() != before.GetVersion() {
		t.Errorf("it has changed something: %v", s)
	}
	// The guard against lost endpoints is one of the rules.
	r.rollback(t, &fleetv1.RollbackRequest{Revision: 2})
	if a := r.rollback(t, &fleetv1.RollbackRequest{Revision: 3}); len(a.GetProblems()) != 1 || !strings.Contains(a.GetProblems()[0], "drops 10 of 12 endpoints") {
		t.Errorf("got %v", a)
	}
	if a := r.rollback(t, &fleetv1.RollbackRequest{Revision: 3, Force: true}); a.GetRevision() != 5 {
		t.Errorf("got %v", a)
	}

	d, err := r.fleet.Diff(t.Context(), &fleetv1.DiffRequest{From: 1})
	if err != nil || len(d.GetChanges()) != 1 || !strings.Contains(d.GetChanges()[0].GetDetail(), "the rules of today refuse it (revision 1:2:12: ") ||
		!strings.Contains(d.GetUnified(), "-endpoints: {}") {
		t.Errorf("got %v, %v", d, err)
	}
}

func TestARollbackOntoAFileThatCannotBeReplaced(t *testing.T) {
	file := newFile(t, text(2))
	link := filepath.Join(t.TempDir(), "link.yaml")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	r := start(t, link, withState(dir))
	apply(t, r, text(3))
	// A link that leads nowhere is not followed, whoever the process is.
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	_, err := r.fleet.Rollback(t.Context(), &fleetv1.RollbackRequest{Revision: 1})
	refused(t, err, codes.FailedPrecondition, "nothing has changed: write "+link)
	refused(t, err, codes.FailedPrecondition, "controlplane show 1 prints the text of the revision")
	if s := r.status(t); s.GetRevision() != 2 {
		t.Errorf("it has changed something: %v", s)
	}
	check(t, kept(t, dir), 2, text(3))
}

func TestShowAndDiff(t *testing.T) {
	r := start(t, newFile(t, text(2, "# first")), nil)
	apply(t, r, text(3, "# second"))
	if _, err := r.fleet.Drain(t.Context(), &fleetv1.DrainRequest{Url: "http://localhost:5000", Force: true}); err != nil {
		t.Fatal(err)
	}
	for revision, want := range map[uint64]string{1: text(2, "# first"), 2: text(3, "# second"), 0: text(3, "# second")} {
		a, err := r.fleet.Show(t.Context(), &fleetv1.ShowRequest{Revision: revision})
		if err != nil || string(a.GetConfig()) != want || a.GetRevision().GetSize() != uint64(len(want)) {
			t.Errorf("%d: %v, %v", revision, a, err)
		}
	}
	_, err := r.fleet.Show(t.Context(), &fleetv1.ShowRequest{Revision: 4})
	refused(t, err, codes.NotFound, "the history has 1 to 3")

	d, err := r.fleet.Diff(t.Context(), &fleetv1.DiffRequest{From: 1, To: 2})
	if err != nil || len(d.GetChanges()) != 1 || d.GetChanges()[0].GetSubject() != "endpoint /2" || d.GetTo() != 2 {
		t.Errorf("got %v, %v", d, err)
	}
	for _, line := range []string{"--- revision 1\n+++ revision 2\n", "-# first\n+# second\n", "\n+- {from: /2, "} {
		if !strings.Contains(d.GetUnified(), line) {
			t.Errorf("got\n%s\nwithout %q", d.GetUnified(), line)
		}
	}
	// The text of a drain is the same; its table is not.
	d, err = r.fleet.Diff(t.Context(), &fleetv1.DiffRequest{From: 2})
	if err != nil || d.GetUnified() != "" || d.GetTo() != 3 || len(d.GetChanges()) != 3 || d.GetChanges()[0].GetDetail() != "weight 1 → 0" {
		t.Errorf("got %v, %v", d, err)
	}
	_, err = r.fleet.Diff(t.Context(), &fleetv1.DiffRequest{From: 7})
	refused(t, err, codes.NotFound, "there is no revision 7")
}

// Who applies is who has the certificate, whatever the client says.
func TestTheCertificateSaysWhoTheAuthorIs(t *testing.T) {
	ca := identitytest.NewCA(t, "the CA")
	files := ca.Files(t, identity.Identity{Role: identity.ControlPlane, Name: "main"}, nil)
	r := start(t, newFile(t, text(2)), func(o *serve.Options) { o.TLS = files })
	alice := fleetv1.NewFleetServiceClient(connectAs(t, r.server, ca, identity.Identity{Role: identity.Operator, Name: "alice"}))
	if _, err := alice.Apply(t.Context(), &fleetv1.ApplyRequest{Name: "x", Config: []byte(text(3)), Author: "bob@host"}); err != nil {
		t.Fatal(err)
	}
	if _, err := alice.Rollback(t.Context(), &fleetv1.RollbackRequest{Revision: 1, Author: "bob@host"}); err != nil {
		t.Fatal(err)
	}
	if _, err := alice.Drain(t.Context(), &fleetv1.DrainRequest{Url: "http://localhost:5000", Force: true}); err != nil {
		t.Fatal(err)
	}
	h, err := alice.History(t.Context(), &fleetv1.HistoryRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"alice", "alice", "alice", ""} {
		if got := h.GetRevisions()[i].GetAuthor(); got != want {
			t.Errorf("%v: author %q, want %q", h.GetRevisions()[i], got, want)
		}
	}
}

func TestWhatSpoilsTheHistoryIsRefused(t *testing.T) {
	r := start(t, newFile(t, text(2)), nil)
	for _, request := range []*fleetv1.ApplyRequest{
		{Author: "ann\nbob"}, {Author: strings.Repeat("a", 257)}, {Message: "\x1b[2J"}, {Message: strings.Repeat("m", 5000)},
	} {
		request.Name, request.Config = "x.yaml", []byte(text(3))
		_, err := r.fleet.Apply(t.Context(), request)
		refused(t, err, codes.InvalidArgument, "the author or the message")
	}
	if s := r.status(t); s.GetRevision() != 1 {
		t.Errorf("got %v", s)
	}
}
