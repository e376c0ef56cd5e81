package http1_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/textproto"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"reverseproxy/dataplane/internal/http1"
)

// What we accept net/http accepts as well and reads in the same way; the
// differences are where the comments say so. The reverse does not hold: net/http
// accepts bare LF, repeated Content-Length, odd hosts and much
// else that an intermediary must not pass on.

// methodNames are the methods that decide about a response's body, and two that do
// not.
var methodNames = map[http1.Method]string{http1.GET: "GET", http1.POST: "POST", http1.HEAD: "HEAD", http1.CONNECT: "CONNECT"}

// compareRequest checks that net/http accepts an accepted request as well, and
// reads it in the same way.
func compareRequest(t *testing.T, r *http1.Request) {
	t.Helper()
	std, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(r.Raw)))
	if err != nil {
		// net/http reads the target as a URL and refuses percent signs that are
		// not followed by two digits. Here whoever matches the path does.
		target := string(r.Target.Of(r.Raw))
		if strings.Contains(err.Error(), "invalid URL escape") && strings.Contains(target, "%") {
			return
		}
		if trailerRefused(&r.Head, err) {
			return
		}
		t.Fatalf("net/http refuses %q: %v", r.Raw, err)
	}
	if std.Method != string(r.MethodText.Of(r.Raw)) || std.RequestURI != string(r.Target.Of(r.Raw)) {
		t.Errorf("net/http read %q %q", std.Method, std.RequestURI)
	}
	if authority := string(r.Authority.Of(r.Raw)); std.Host != authority {
		t.Errorf("net/http read the host %q, want %q", std.Host, authority)
	}
	switch chunked := len(std.TransferEncoding) == 1; r.Framing {
	case http1.Chunked:
		if !chunked {
			t.Error("net/http does not see chunked")
		}
	case http1.Length, http1.NoBody:
		if chunked || std.ContentLength != r.Length {
			t.Errorf("net/http reads a length of %d, chunked %v, want %d", std.ContentLength, chunked, r.Length)
		}
	default:
		t.Errorf("framing %d", r.Framing)
	}
	if std.Close != r.Close {
		t.Errorf("Close is %v, in net/http %v", r.Close, std.Close)
	}
	checkFields(t, &r.Head, std.Header)
}

// compareResponse checks that net/http accepts an accepted response as well, and
// reads it in the same way.
func compareResponse(t *testing.T, r *http1.Response, method string) {
	t.Helper()
	std, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(r.Raw)), &http.Request{Method: method})
	if err != nil {
		if trailerRefused(&r.Head, err) {
			return
		}
		t.Fatalf("net/http refuses %q: %v", r.Raw, err)
	}
	if std.StatusCode != r.Status {
		t.Errorf("net/http read the status %d, want %d", std.StatusCode, r.Status)
	}
	// net/http looks at the framing fields even where they mean nothing, so there
	// is nothing to compare for NoBody.
	chunked := len(std.TransferEncoding) == 1
	switch r.Framing {
	case http1.Chunked:
		if !chunked {
			t.Error("net/http does not see chunked")
		}
	case http1.Length:
		if chunked || std.ContentLength != r.Length {
			t.Errorf("net/http reads a length of %d, chunked %v, want %d", std.ContentLength, chunked, r.Length)
		}
	case http1.UntilClose:
		if chunked || std.ContentLength != -1 {
			t.Errorf("net/http reads a length of %d, chunked %v, want none", std.ContentLength, chunked)
		}
	}
	if r.Framing != http1.NoBody && std.Close != r.Close {
		t.Errorf("Close is %v, in net/http %v", r.Close, std.Close)
	}
	checkFields(t, &r.Head, std.Header)
}

// checkFields checks that net/http saw the same fields, but for those that it
// takes out: Host, Trailer, and what it reads framing and persistence from.
func checkFields(t *testing.T, h *http1.Head, got http.Header) {
	t.Helper()
	want := http.Header{}
	for _, f := range h.Fields {
		name := textproto.CanonicalMIMEHeaderKey(string(f.Name.Of(h.Raw)))
		want[name] = append(want[name], string(f.Value.Of(h.Raw)))
	}
	for _, header := range []http.Header{want, got} {
		for _, name := range []string{"Host", "Transfer-Encoding", "Trailer", "Content-Length", "Connection"} {
			delete(header, name)
		}
	}
	// net/http adds Cache-Control: no-cache for Pragma: no-cache.
	if _, ok := want["Cache-Control"]; !ok && len(want["Pragma"]) > 0 {
		delete(got, "Cache-Control")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("fields (-http1 +net/http)\n%s", diff)
	}
}

// trailerRefused reports whether net/http refuses a head for what its Trailer field
// announces. We forward the announcement and refuse such fields when they come.
func trailerRefused(h *http1.Head, err error) bool {
	_, has := h.Get(http1.Trailer)
	return has && strings.Contains(err.Error(), "bad trailer key")
}

// checkDecoded checks an accepted chunked body against net/http's reader, which
// must find the same payload and the same end.
func checkDecoded(t *testing.T, p, payload string, n int) {
	t.Helper()
	br := bufio.NewReaderSize(strings.NewReader("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"+p), 64<<10)
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	std, err := io.ReadAll(resp.Body)
	if err != nil {
		// net/http limits one chunk line to 4 KiB; we limit all extensions together
		// to 16 KiB.
		if errors.Is(err, http.ErrLineTooLong) || strings.Contains(err.Error(), "excessive data") {
			return
		}
		t.Fatalf("net/http refuses %q: %v", p[:n], err)
	}
	if string(std) != payload {
		t.Errorf("net/http reads %q, want %q", std, payload)
	}
	if rest, _ := io.ReadAll(br); string(rest) != p[n:] {
		t.Errorf("net/http leaves %q, want %q", rest, p[n:])
	}
}
