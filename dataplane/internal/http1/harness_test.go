package http1_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"reverseproxy/dataplane/internal/http1"
)

// message is what the tests need of Request and Response alike.
type message interface {
	parse(p []byte, s *http1.Scan, lim http1.Limits) (int, *http1.Error)
	head() *http1.Head
	fresh() message
}

type request struct{ http1.Request }

func (r *request) parse(p []byte, s *http1.Scan, lim http1.Limits) (int, *http1.Error) {
	return r.Parse(p, s, lim)
}
func (r *request) head() *http1.Head { return &r.Head }
func (r *request) fresh() message    { return &request{} }

type response struct {
	http1.Response
	To http1.Method
}

func (r *response) parse(p []byte, s *http1.Scan, lim http1.Limits) (int, *http1.Error) {
	return r.Parse(p, s, lim, r.To)
}
func (r *response) head() *http1.Head { return &r.Head }
func (r *response) fresh() message    { return &response{To: r.To} }

// outcome is the result of parsing. Message is set when N > 0.
type outcome struct {
	N       int
	Err     *http1.Error
	Message message
}

func (o outcome) String() string {
	if o.Err != nil {
		return fmt.Sprintf("%d %s", o.Err.Status, o.Err.Reason)
	}
	if o.N == 0 {
		return "more"
	}
	return "ok"
}

// parseWhole parses p in one call.
func parseWhole(kind message, p string, lim http1.Limits) outcome {
	return parseReads(kind, p, lim, len(p))
}

// parseReads parses p as it grows to each of the lengths. Every call gets another
// message and another copy of the bytes, since only the Scan has to last.
func parseReads(kind message, p string, lim http1.Limits, lengths ...int) outcome {
	var s http1.Scan
	var o outcome
	for _, l := range lengths {
		o.Message = kind.fresh()
		o.N, o.Err = o.Message.parse([]byte(p[:l]), &s, lim)
		if o.Err != nil || o.N > 0 {
			break
		}
	}
	if o.N == 0 {
		o.Message = nil
	}
	return o
}

// upTo returns 1 … n.
func upTo(n int) []int {
	lengths := make([]int, n)
	for i := range lengths {
		lengths[i] = i + 1
	}
	return lengths
}

// checkSplits checks that p parses as want in two reads, for every split, and
// byte by byte.
func checkSplits(t *testing.T, kind message, p string, lim http1.Limits, want outcome) {
	t.Helper()
	check := func(how string, got outcome) {
		t.Helper()
		if diff := diffOutcome(want, got); diff != "" {
			t.Errorf("%s: (-in one read +in pieces)\n%s", how, diff)
		}
	}
	for i := range len(p) {
		check(fmt.Sprintf("split at %d", i), parseReads(kind, p, lim, i, len(p)))
	}
	check("byte by byte", parseReads(kind, p, lim, upTo(len(p))...))
}

func diffOutcome(want, got outcome) string {
	if want.Err != got.Err {
		return fmt.Sprintf("-%v +%v", want, got)
	}
	return cmp.Diff(want, got, cmpopts.IgnoreUnexported(http1.Head{}), cmpopts.EquateEmpty())
}

// checkRefused checks that the last byte of p, and no earlier one, makes a head
// that is refused as want says, however it is split and whatever follows.
func checkRefused(t *testing.T, kind message, p string, lim http1.Limits, want string) {
	t.Helper()
	got := parseWhole(kind, p, lim)
	if got.String() != want {
		t.Fatalf("got %v, want %v", got, want)
	}
	if before := parseWhole(kind, p[:len(p)-1], lim); before.String() != "more" {
		t.Errorf("without the last byte: got %v, want more", before)
	}
	for _, tail := range []string{"", "x", "\r\n", "\r\n\r\n", "\n", "\x00", ": a\r\n\r\n", " HTTP/1.1\r\nHost: a\r\n\r\n"} {
		whole := parseWhole(kind, p+tail, lim)
		if whole.Err != got.Err {
			t.Errorf("followed by %q: got %v, want %v", tail, whole, want)
		}
		checkSplits(t, kind, p+tail, lim, whole)
	}
}

// summary describes a head in one line.
func summary(h *http1.Head) string {
	var b strings.Builder
	fmt.Fprintf(&b, "1.%d ", h.Minor)
	switch h.Framing {
	case http1.NoBody:
		b.WriteString("nobody")
	case http1.Length:
		fmt.Fprintf(&b, "length=%d", h.Length)
	case http1.Chunked:
		b.WriteString("chunked")
	case http1.UntilClose:
		b.WriteString("untilclose")
	}
	if h.Close {
		b.WriteString(" close")
	}
	if h.Upgrade {
		b.WriteString(" upgrade")
	}
	return b.String()
}

// fieldList renders fields as name=value, with a "-" before those that end here.
func fieldList(h *http1.Head) []string {
	var list []string
	for _, f := range h.Fields {
		s := string(f.Name.Of(h.Raw)) + "=" + string(f.Value.Of(h.Raw))
		if f.Hop {
			s = "-" + s
		}
		list = append(list, s)
	}
	return list
}

// checkSpans checks that a head's lines follow each other without a gap and that
// spans lie in their lines.
func checkSpans(t *testing.T, h *http1.Head) {
	t.Helper()
	raw := string(h.Raw)
	next := uint32(strings.Index(raw, "\r\n") + 2)
	for i, f := range h.Fields {
		if f.Line.Start != next {
			t.Errorf("field %d starts at %d, want %d", i, f.Line.Start, next)
		}
		next = f.Line.End
		line, name, value := string(f.Line.Of(h.Raw)), string(f.Name.Of(h.Raw)), string(f.Value.Of(h.Raw))
		rest, isPrefix := strings.CutPrefix(line, name+":")
		if !isPrefix || strings.Trim(strings.TrimSuffix(rest, "\r\n"), " \t") != value {
			t.Errorf("field %d: line %q, name %q, value %q", i, line, name, value)
		}
		if f.Name.Start != f.Line.Start || f.Value.Start < f.Name.End || f.Value.End+2 > f.Line.End {
			t.Errorf("field %d: spans %+v", i, f)
		}
	}
	if raw[next:] != "\r\n" {
		t.Errorf("after the fields: %q, want the empty line", raw[next:])
	}
}
