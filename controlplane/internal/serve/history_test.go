package serve_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"reverseproxy/controlplane/internal/fleet/fleettest"
	"reverseproxy/controlplane/internal/history"
	"reverseproxy/controlplane/internal/serve"
	fleetv1 "reverseproxy/proto/fleet/v1"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// kept opens a copy of the history in a state directory, which may be in use.
func kept(t *testing.T, dir string) *history.Store {
	t.Helper()
	var copied string
	eventually(t, "it is copied, and nothing was written meanwhile", func() bool {
		copied = t.TempDir()
		return os.CopyFS(copied, os.DirFS(filepath.Join(dir, history.DirName))) == nil
	})
	s, err := history.Open(copied, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// check fails unless the newest entry has the revision and the text.
func check(t *testing.T, s *history.Store, revision uint64, want string) {
	t.Helper()
	newest := s.Newest()
	got, err := s.Text(newest.Revision)
	if newest.Revision != revision || err != nil || string(got) != want {
		t.Errorf("newest is revision %d with %q, %v; want %d with %q", newest.Revision, got, err, revision, want)
	}
}

// eventually polls until the condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("not in %s: %s", patience, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func withState(dir string) func(*serve.Options) { return func(o *serve.Options) { o.StateDir = dir } }

func apply(t *testing.T, r *running, content string) *fleetv1.ApplyResponse {
	t.Helper()
	a, err := r.fleet.Apply(t.Context(), &fleetv1.ApplyRequest{Name: "x.yaml", Config: []byte(content), Author: "ann@host", Message: "why"})
	if err != nil || len(a.GetProblems()) > 0 {
		t.Fatalf("%v, %v", a, err)
	}
	return a
}

func TestEveryChangeIsInTheHistory(t *testing.T) {
	file, dir := newFile(t, text(2)), t.TempDir()
	r := start(t, file, withState(dir))
	save(t, file, text(3))
	r.wait(t, "the edit is loaded", func(s *fleetv1.StatusResponse) bool { return s.GetRevision() == 2 })
	if a := apply(t, r, text(4)); a.GetRevision() != 3 || !a.GetKept() {
		t.Errorf("got %v", a)
	}
	for _, undrain := range []bool{false, true} {
		if _, err := r.fleet.Drain(t.Context(), &fleetv1.DrainRequest{Url: "http://localhost:5000", Undrain: undrain, Force: true}); err != nil {
			t.Fatal(err)
		}
	}
	r.stop()
	s := kept(t, dir)
	var got []string
	for _, e := range s.List() {
		content, err := s.Text(e.Revision)
		if err != nil {
			t.Error(err)
		}
		got = append(got, fmt.Sprintf("%d %s %s %s %d %d", e.Revision, e.Origin, e.Author, e.Message, e.Endpoints, strings.Count(string(content), "from")))
	}
	want := []string{
		"5 ORIGIN_DRAIN  undrain backend http://localhost:5000 4 4",
		"4 ORIGIN_DRAIN  drain backend http://localhost:5000 4 4",
		"3 ORIGIN_APPLY ann@host why 4 4",
		"2 ORIGIN_FILE   3 3",
		"1 ORIGIN_FILE   2 2",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// A text that means the same as the running one is what a rollback to the revision
// brings back.
func TestATextThatMeansTheSameTakesThePlaceOfTheOther(t *testing.T) {
	file, dir := newFile(t, text(2)), t.TempDir()
	r := start(t, file, withState(dir))
	edited, applied, offline := text(2, "# edited"), text(2, "# applied"), text(2, "# while it was away")
	save(t, file, edited)
	r.wait(t, "it is read", func(*fleetv1.StatusResponse) bool { return strings.Contains(r.log.String(), "means the same") })
	check(t, kept(t, dir), 1, edited)
	if a := apply(t, r, applied); a.GetChanged() || a.GetRevision() != 1 {
		t.Errorf("got %v", a)
	}
	check(t, kept(t, dir), 1, applied)
	r.stop()
	save(t, file, offline)
	r = start(t, file, withState(dir))
	r.metric(t, "controlplane_history_last_write_successful 1")
	r.stop()
	check(t, kept(t, dir), 1, offline)
}

// A crash between writing the file and the end of apply is completed by the next start.
func TestAnApplyThatACrashHasCutOff(t *testing.T) {
	for _, test := range []struct {
		name, file string
		want       history.Entry
	}{
		{"after the file was written", text(3), history.Entry{Revision: 2, Author: "ann@host", Origin: fleetv1.Origin_ORIGIN_APPLY}},
		{"before", text(2), history.Entry{Revision: 1, Origin: fleetv1.Origin_ORIGIN_FILE}},
	} {
		t.Run(test.name, func(t *testing.T) {
			file, dir := newFile(t, text(2)), t.TempDir()
			r := start(t, newFile(t, text(3)), nil)
			version := r.status(t).GetVersion()
			r.stop()
			r = start(t, file, withState(dir))
			r.stop()
			entry := history.Entry{Revision: 2, Version: version, Author: "ann@host", Origin: fleetv1.Origin_ORIGIN_APPLY}
			s, err := history.Open(filepath.Join(dir, history.DirName), slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Prepare(entry, []byte(text(3))); err != nil {
				t.Fatal(err)
			}
			save(t, file, test.file)
			r = start(t, file, withState(dir))
			if got := r.status(t).GetRevision(); got != test.want.Revision {
				t.Errorf("revision %d, want %d", got, test.want.Revision)
			}
			r.stop()
			s = kept(t, dir)
			check(t, s, test.want.Revision, test.file)
			if got := s.Newest(); got.Author != test.want.Author || got.Origin != test.want.Origin {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// An earlier release has kept the revision in a file of its own.
func TestTheRevisionOfAnEarlierReleaseGoesOn(t *testing.T) {
	file := newFile(t, text(2))
	r := start(t, file, nil)
	version := r.status(t).GetVersion()
	r.stop()
	for name, want := range map[string]uint64{
		fmt.Sprintf(`{"revision":7,"version":%q}`, version): 7,
		`{"revision":7,"version":"other"}`:                  8,
		`damaged`:                                           1,
	} {
		dir := t.TempDir()
		old := filepath.Join(dir, "revision.json")
		if err := os.WriteFile(old, []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
		r := start(t, file, withState(dir))
		if got := r.status(t).GetRevision(); got != want {
			t.Errorf("%s: revision %d, want %d", name, got, want)
		}
		r.stop()
		check(t, kept(t, dir), want, text(2))
		if _, err := os.Stat(old); !os.IsNotExist(err) {
			t.Errorf("%s: the old file is still there: %v", name, err)
		}
	}
}

// The fleet knows better than a control plane that has lost its state directory: no
// data plane gets a new table, and the history has the fleet's number.
func TestALostStateDirectory(t *testing.T) {
	file, dir := newFile(t, text(2)), t.TempDir()
	r := start(t, file, withState(dir))
	version := r.status(t).GetVersion()
	dp := fleettest.Start(t, r.server, "a", &routetablev1.State{Version: version, Revision: 40}, fleettest.Apply)
	r.wait(t, "its revision is taken over", func(s *fleetv1.StatusResponse) bool { return s.GetRevision() == 40 })
	eventually(t, "the history has it", func() bool { return kept(t, dir).Newest().Revision == 40 })
	if n := len(dp.Tables()); n != 0 {
		t.Errorf("the data plane was sent %d tables", n)
	}
	if a := apply(t, r, text(3)); a.GetRevision() != 41 {
		t.Errorf("got %v", a)
	}
	r.stop()
	check(t, kept(t, dir), 41, text(3))
}

// A damaged newest revision is not taken for what is in force, and its number not used
// again.
func TestADamagedNewestRevision(t *testing.T) {
	file, dir := newFile(t, text(2)), t.TempDir()
	r := start(t, file, withState(dir))
	apply(t, r, text(3))
	r.stop()
	damaged := filepath.Join(dir, history.DirName, "0000000000000002.revision")
	if err := os.WriteFile(damaged, []byte("damaged"), 0o644); err != nil {
		t.Fatal(err)
	}
	r = start(t, file, withState(dir))
	if got := r.status(t).GetRevision(); got != 3 || !strings.Contains(r.log.String(), damaged) {
		t.Errorf("revision %d, want 3 and a line in the log:\n%s", got, r.log)
	}
}

// A history that cannot be written does not keep an edit of the file from being
// served; an apply is refused, which would be told that it is kept.
func TestAHistoryThatCannotBeWritten(t *testing.T) {
	file, dir := newFile(t, text(2)), t.TempDir()
	r := start(t, file, withState(dir))
	place := filepath.Join(dir, history.DirName)
	if err := os.Rename(place, place+".away"); err != nil {
		t.Fatal(err)
	}
	if a, err := r.fleet.Apply(t.Context(), &fleetv1.ApplyRequest{Name: "x.yaml", Config: []byte(text(4))}); err == nil || !strings.Contains(err.Error(), "history") {
		t.Errorf("got %v, %v", a, err)
	}
	save(t, file, text(3))
	r.wait(t, "the edit is loaded", func(s *fleetv1.StatusResponse) bool { return s.GetRevision() == 2 })
	if !strings.Contains(r.log.String(), "revision not kept") {
		t.Errorf("not logged:\n%s", r.log)
	}
	r.metric(t, "controlplane_history_last_write_successful 0")
	// The edit is not forgotten by an apply that is refused.
	if a, err := r.fleet.Apply(t.Context(), &fleetv1.ApplyRequest{Name: "x.yaml", Config: []byte(text(4))}); err == nil {
		t.Errorf("got %v", a)
	}
	if err := os.Rename(place+".away", place); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is kept after all", func() bool { return kept(t, dir).Newest().Revision == 2 })
	check(t, kept(t, dir), 2, text(3))
	eventually(t, "the metric says so", func() bool {
		_, body, _ := r.get(t, "/metrics")
		return strings.Contains(body, "controlplane_history_last_write_successful 1\n")
	})
}
