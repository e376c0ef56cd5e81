package http1_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"reverseproxy/dataplane/internal/http1"
)

func TestResponse(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		to       http1.Method
		want     string
	}{
		{"9112 4: status line", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", http1.GET, "200 OK 1.1 length=3"},
		{"9112 4: empty reason", "HTTP/1.1 200 \r\nContent-Length: 3\r\n\r\n", http1.GET, "200  1.1 length=3"},
		{"9112 4: no space after the status", "HTTP/1.1 200\r\nContent-Length: 3\r\n\r\n", http1.GET, "200  1.1 length=3"},
		{"9112 4: any text as reason", "HTTP/1.1 404 Not\tFound: \xc3\xa4 (sorry)\r\nContent-Length: 3\r\n\r\n", http1.GET, "404 Not\tFound: \xc3\xa4 (sorry) 1.1 length=3"},
		{"9110 15: lowest status", "HTTP/1.1 100 C\r\n\r\n", http1.GET, "100 C 1.1 nobody"},
		{"9110 15: highest status", "HTTP/1.1 999 X\r\nContent-Length: 0\r\n\r\n", http1.GET, "999 X 1.1 length=0"},

		{"9112 6.3 1: HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", http1.HEAD, "200 OK 1.1 nobody"},
		{"9112 6.1: Transfer-Encoding in answer to HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", http1.HEAD, "200 OK 1.1 nobody"},
		{"9112 6.3 1: HEAD without length keeps the connection", "HTTP/1.1 200 OK\r\n\r\n", http1.HEAD, "200 OK 1.1 nobody"},
		{"9112 6.3 1: 304 with length", "HTTP/1.1 304 X\r\nContent-Length: 3\r\n\r\n", http1.GET, "304 X 1.1 nobody"},
		{"9112 6.1: 304 with Transfer-Encoding", "HTTP/1.1 304 X\r\nTransfer-Encoding: chunked\r\n\r\n", http1.GET, "304 X 1.1 nobody"},
		{"9112 6.3 1: 304", "HTTP/1.1 304 X\r\n\r\n", http1.GET, "304 X 1.1 nobody"},
		{"9112 6.3 1: 204", "HTTP/1.1 204 X\r\n\r\n", http1.GET, "204 X 1.1 nobody"},
		{"9110 8.6: 204 with a length of zero", "HTTP/1.1 204 X\r\nContent-Length: 0\r\n\r\n", http1.GET, "204 X 1.1 nobody"},
		{"9110 8.6: 1xx with a length of zero", "HTTP/1.1 103 X\r\nContent-Length: 0\r\n\r\n", http1.GET, "103 X 1.1 nobody"},
		{"9112 6.3 1: 101", "HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", http1.GET, "101 X 1.1 nobody upgrade"},
		{"9112 6.3 2: CONNECT", "HTTP/1.1 200 X\r\nContent-Length: 3\r\n\r\n", http1.CONNECT, "200 X 1.1 nobody"},
		{"9112 6.3 2: CONNECT refused", "HTTP/1.1 407 X\r\nContent-Length: 3\r\n\r\n", http1.CONNECT, "407 X 1.1 length=3"},
		{"9112 6.3 4: chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", http1.POST, "200 OK 1.1 chunked"},
		{"9112 6.3 8: until close", "HTTP/1.1 200 OK\r\n\r\n", http1.GET, "200 OK 1.1 untilclose close"},
		{"9112 6.3 8: until close whatever Connection says", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n", http1.GET, "200 OK 1.0 untilclose close"},
		{"9110 15.3.6: 205 has no rule of its own", "HTTP/1.1 205 X\r\nContent-Length: 0\r\n\r\n", http1.GET, "205 X 1.1 length=0"},

		{"9112 9.3: close", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\n", http1.GET, "200 OK 1.1 length=3 close"},
		{"9112 9.3: 1.0", "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n", http1.GET, "200 OK 1.0 length=3 close"},
		{"9112 9.3: 1.0 with keep-alive", "HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\n", http1.GET, "200 OK 1.0 length=3"},
		{"9112 3.2: Host means nothing in a response", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nHost: a b\r\nHost:\r\n\r\n", http1.GET, "200 OK 1.1 length=3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			kind := &response{To: tt.to}
			whole := parseWhole(kind, tt.in, http1.Limits{})
			if whole.N != len(tt.in) {
				t.Fatalf("got %v with n=%d, want n=%d", whole, whole.N, len(tt.in))
			}
			r := &whole.Message.(*response).Response
			if got := fmt.Sprintf("%d %s %s", r.Status, r.Reason.Of(r.Raw), summary(&r.Head)); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			checkSpans(t, &r.Head)
			compareResponse(t, r, methodNames[tt.to])
			checkSplits(t, kind, tt.in, http1.Limits{}, whole)
		})
	}
}

// Each input ends with the byte at which it must be refused.
func TestResponseRefused(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\nServer: a\r\n"
	const (
		badLine = "400 invalid status line"
		bareLF  = "400 line feed without carriage return"
		bareCR  = "400 carriage return without line feed"
	)
	for _, tt := range []struct{ name, in, want string }{
		{"9112 2.2: empty line before", "\r", badLine},
		{"9112 2.2: bare LF before", "\n", bareLF},
		{"9112 4: another protocol", "I", badLine},
		{"9112 4: lower case", "HTTp", badLine},
		{"9112 2.3: HTTP/2", "HTTP/2", badLine},
		{"9112 2.3: HTTP/1.2", "HTTP/1.2", badLine},
		{"9112 4: two spaces", "HTTP/1.1  ", badLine},
		{"9112 4: tab", "HTTP/1.1\t", badLine},
		{"9112 4: no status", "HTTP/1.1\r", badLine},
		{"9112 4: two digits", "HTTP/1.1 20 ", badLine},
		{"9112 4: four digits", "HTTP/1.1 2000", badLine},
		{"9112 4: sign", "HTTP/1.1 +", badLine},
		{"9110 15: below 100", "HTTP/1.1 0", badLine},
		{"9112 4: letter", "HTTP/1.1 20x", badLine},
		{"9112 2.2: bare LF after the status", "HTTP/1.1 200\n", bareLF},
		{"9112 2.2: bare CR after the status", "HTTP/1.1 200\rO", bareCR},
		{"9112 2.2: bare LF after the reason", "HTTP/1.1 200 OK\n", bareLF},
		{"9112 2.2: bare CR in the reason", "HTTP/1.1 200 O\rK", bareCR},
		{"9112 4: NUL in the reason", "HTTP/1.1 200 O\x00", "400 control character in a field value"},

		{"9112 2.2: white space before the first field", "HTTP/1.1 200 OK\r\n ", "400 white space before the first field line"},
		{"9112 5.2: obs-fold", ok + "\t", "400 folded field line"},
		{"9112 5.1: space before the colon", ok + "A ", "400 white space in or after a field name"},
		{"9110 5.1: empty name", ok + ":", "400 empty field name"},
		{"9112 2.2: bare LF after a value", ok + "A: b\n", bareLF},
		{"9112 2.2: bare LF as the empty line", ok + "\n", bareLF},
		{"9110 5.5: NUL in a value", ok + "A: \x00", "400 control character in a field value"},

		{"9112 6.3 3: Content-Length and Transfer-Encoding", ok + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "400 both Content-Length and Transfer-Encoding"},
		{"9112 6.3 5: Content-Length twice", ok + "Content-Length: 3\r\nContent-Length: 3\r\n", "400 more than one Content-Length"},
		{"9112 6.3 5: Content-Length list", ok + "Content-Length: 3,3\r\n", "400 invalid Content-Length"},
		{"9112 6.1: Transfer-Encoding in 1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n", "400 Transfer-Encoding in an HTTP/1.0 message"},
		{"9112 6.3 4: not chunked", ok + "Transfer-Encoding: gzip\r\n", "501 unknown transfer coding"},
		{"9112 6.1: unknown coding", ok + "Transfer-Encoding: gzip, chunked\r\n", "501 unknown transfer coding"},
		{"9110 8.6: 204 with a length", "HTTP/1.1 204 X\r\nContent-Length: 3\r\n\r\n", "400 body announced where none is allowed"},
		{"9110 8.6: 1xx with a length", "HTTP/1.1 100 X\r\nContent-Length: 3\r\n\r\n", "400 body announced where none is allowed"},
		{"9112 6.1: 204 with Transfer-Encoding", "HTTP/1.1 204 X\r\nTransfer-Encoding: chunked\r\n\r\n", "400 body announced where none is allowed"},
		{"9112 6.1: 101 with Transfer-Encoding", "HTTP/1.1 101 X\r\nTransfer-Encoding: chunked\r\n\r\n", "400 body announced where none is allowed"},
		{"9110 7.6.1: absurdly many connection options", "HTTP/1.1 200 OK\r\nConnection: " + strings.Repeat("a,", 33) + "\r\n\r\n", "400 too many connection options"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			checkRefused(t, &response{}, tt.in, http1.Limits{}, tt.want)
		})
	}
	t.Run("limits", func(t *testing.T) {
		checkRefused(t, &response{}, ok+"A", http1.Limits{Fields: 1}, "431 too many fields")
		checkRefused(t, &response{}, ok, http1.Limits{HeadBytes: len(ok)}, "431 head too large")
	})
}

// RFC 9110 section 8.6: a 204 has no Content-Length. RFC 9110 section 15.2.
func TestResponseWithoutBody(t *testing.T) {
	o := parseWhole(&response{}, "HTTP/1.1 204 X\r\nContent-Length: 0\r\nServer: a\r\n\r\n", http1.Limits{})
	if diff := cmp.Diff([]string{"-Content-Length=0", "Server=a"}, fieldList(o.Message.head())); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	for status, want := range map[int]bool{100: true, 101: false, 103: true, 199: true, 200: false, 204: false} {
		if got := (&http1.Response{Status: status}).Interim(); got != want {
			t.Errorf("Interim of %d is %v", status, got)
		}
	}
}
