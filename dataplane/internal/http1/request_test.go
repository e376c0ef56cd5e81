package http1_test

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"reverseproxy/dataplane/internal/http1"
)

// requestSummary describes a request in one line.
func requestSummary(r *http1.Request) string {
	forms := []string{"origin", "absolute", "authority", "asterisk"}
	s := fmt.Sprintf("%s %s path=%s", r.MethodText.Of(r.Raw), forms[r.Form], r.Path.Of(r.Raw))
	if r.HasQuery {
		s += " query=" + string(r.Query.Of(r.Raw))
	}
	s += fmt.Sprintf(" host=%s %s", r.Authority.Of(r.Raw), summary(&r.Head))
	if r.ExpectContinue {
		s += " continue"
	}
	if r.ExpectOther {
		s += " expect"
	}
	if r.TETrailers {
		s += " trailers"
	}
	if r.MaxForwards >= 0 {
		s += fmt.Sprintf(" forwards=%d", r.MaxForwards)
	}
	return s
}

func TestRequest(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"9112 3: request line", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET origin path=/ host=a 1.1 nobody"},
		{"9112 2.2: one empty line before", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET origin path=/ host=a 1.1 nobody"},
		{"9112 2.2: two empty lines before", "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET origin path=/ host=a 1.1 nobody"},
		{"9110 2.5: a higher minor version is read as 1.1", "GET / HTTP/1.7\r\nHost: a\r\n\r\n", "GET origin path=/ host=a 1.1 nobody"},
		{"9112 3.2: HTTP/1.0 without Host", "GET / HTTP/1.0\r\n\r\n", "GET origin path=/ host= 1.0 nobody close"},
		{"9110 9.1: other method", "BREW-It /pot HTTP/1.1\r\nHost: a\r\n\r\n", "BREW-It origin path=/pot host=a 1.1 nobody"},
		{"9110 9.1: methods are case-sensitive", "get / HTTP/1.1\r\nHost: a\r\n\r\n", "get origin path=/ host=a 1.1 nobody"},

		{"9112 3.2.1: origin-form with query", "GET /a/b?c=d?e HTTP/1.1\r\nHost: a\r\n\r\n", "GET origin path=/a/b query=c=d?e host=a 1.1 nobody"},
		{"9112 3.2.1: empty query", "GET /? HTTP/1.1\r\nHost: a\r\n\r\n", "GET origin path=/ query= host=a 1.1 nobody"},
		{"9112 3.2.1: two slashes are a path", "GET //b/c HTTP/1.1\r\nHost: a\r\n\r\n", "GET origin path=//b/c host=a 1.1 nobody"},
		{"9112 3.2.1: bytes outside the URI grammar that clients send", "GET /{|}\"<>[]^` HTTP/1.1\r\nHost: a\r\n\r\n", "GET origin path=/{|}\"<>[]^` host=a 1.1 nobody"},
		{"9112 3.2.2: absolute-form", "GET http://b:81/c?d HTTP/1.1\r\nHost: b:81\r\n\r\n", "GET absolute path=/c query=d host=b:81 1.1 nobody"},
		{"9112 3.2.2: its authority replaces Host", "GET http://b/c HTTP/1.1\r\nHost: a\r\n\r\n", "GET absolute path=/c host=b 1.1 nobody"},
		{"9112 3.2.2: HTTP/1.0 without Host", "GET http://b/c HTTP/1.0\r\n\r\n", "GET absolute path=/c host=b 1.0 nobody close"},
		{"9110 4.2.3: absolute-form without path", "GET http://b HTTP/1.1\r\nHost: b\r\n\r\n", "GET absolute path= host=b 1.1 nobody"},
		{"9110 4.2.3: absolute-form with query only", "GET http://b?c HTTP/1.1\r\nHost: b\r\n\r\n", "GET absolute path= query=c host=b 1.1 nobody"},
		{"9110 4.2.3: schemes are case-insensitive", "GET HTTP://B/ HTTP/1.1\r\nHost: b\r\n\r\n", "GET absolute path=/ host=B 1.1 nobody"},
		{"9112 3.2.3: authority-form", "CONNECT b:443 HTTP/1.1\r\nHost: a\r\n\r\n", "CONNECT authority path= host=b:443 1.1 nobody"},
		{"9112 3.2.3: authority-form with an IPv6 address", "CONNECT [::1]:443 HTTP/1.1\r\nHost: a\r\n\r\n", "CONNECT authority path= host=[::1]:443 1.1 nobody"},
		{"9112 3.2.4: asterisk-form", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS asterisk path= host=a 1.1 nobody"},

		{"9110 7.2: Host with port", "GET / HTTP/1.1\r\nhost:a.b-c_d:8080\r\n\r\n", "GET origin path=/ host=a.b-c_d:8080 1.1 nobody"},
		{"9110 7.2: Host with empty port", "GET / HTTP/1.1\r\nHost: a:\r\n\r\n", "GET origin path=/ host=a: 1.1 nobody"},
		{"9110 7.2: Host that is an IPv6 address", "GET / HTTP/1.1\r\nHost: [2001:db8::7]:80\r\n\r\n", "GET origin path=/ host=[2001:db8::7]:80 1.1 nobody"},
		{"3986 3.2.2: sub-delims in Host", "GET / HTTP/1.1\r\nHost: a;b=c!\r\n\r\n", "GET origin path=/ host=a;b=c! 1.1 nobody"},

		{"9112 5: no white space after the colon", "GET / HTTP/1.1\r\nHost:a\r\nB:c\r\n\r\n", "GET origin path=/ host=a 1.1 nobody"},
		{"9112 5: much white space around the value", "GET / HTTP/1.1\r\nHost: \t a\t \r\n\r\n", "GET origin path=/ host=a 1.1 nobody"},
		{"9112 5: empty value", "GET / HTTP/1.1\r\nHost: a\r\nB:\r\nC: \t \r\n\r\n", "GET origin path=/ host=a 1.1 nobody"},
		{"9110 5.5: obs-text and tab in a value", "GET / HTTP/1.1\r\nHost: a\r\nB: \xff\tb\x80\tcdefghijk\r\n\r\n", "GET origin path=/ host=a 1.1 nobody"},
		{"9110 5.6.2: every tchar in a name", "GET / HTTP/1.1\r\nHost: a\r\n!#$%&'*+-.^_`|~09azAZ: b\r\n\r\n", "GET origin path=/ host=a 1.1 nobody"},

		{"9110 8.6: Content-Length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n", "POST origin path=/ host=a 1.1 length=12"},
		{"9110 8.6: Content-Length of zero", "POST / HTTP/1.1\r\nHost: a\r\ncontent-length: 0\r\n\r\n", "POST origin path=/ host=a 1.1 length=0"},
		{"9110 8.6: largest Content-Length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775807\r\n\r\n", "POST origin path=/ host=a 1.1 length=9223372036854775807"},
		{"9110 8.6: leading zeros", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 000000000000000000000000000012\r\n\r\n", "POST origin path=/ host=a 1.1 length=12"},
		{"9112 6.1: chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", "POST origin path=/ host=a 1.1 chunked"},
		{"9112 7: coding names are case-insensitive", "POST / HTTP/1.1\r\nHost: a\r\nTRANSFER-ENCODING:\tCHunked\t\r\n\r\n", "POST origin path=/ host=a 1.1 chunked"},
		{"9112 6.3: a GET with a body", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n", "GET origin path=/ host=a 1.1 length=1"},

		{"9112 9.3: close", "GET / HTTP/1.1\r\nHost: a\r\nConnection: Close\r\n\r\n", "GET origin path=/ host=a 1.1 nobody close"},
		{"9112 9.3: close in a list", "GET / HTTP/1.1\r\nHost: a\r\nConnection: x,, close ,\r\n\r\n", "GET origin path=/ host=a 1.1 nobody close"},
		{"9112 9.3: close in the second field", "GET / HTTP/1.1\r\nHost: a\r\nConnection: x\r\nConnection: close\r\n\r\n", "GET origin path=/ host=a 1.1 nobody close"},
		{"9112 9.3: keep-alive is the default of 1.1", "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", "GET origin path=/ host=a 1.1 nobody"},
		{"9112 9.3: keep-alive in 1.0", "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "GET origin path=/ host= 1.0 nobody"},
		{"9112 9.3: close wins over keep-alive", "GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", "GET origin path=/ host= 1.0 nobody close"},
		{"9110 7.6.1: a word that only contains close", "GET / HTTP/1.1\r\nHost: a\r\nConnection: closed, xclose, close;x\r\n\r\n", "GET origin path=/ host=a 1.1 nobody"},

		{"9110 7.8: Upgrade", "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n", "GET origin path=/ host=a 1.1 nobody upgrade"},
		{"9110 7.8: Upgrade that Connection does not name", "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", "GET origin path=/ host=a 1.1 nobody"},
		{"9110 7.8: Connection names an Upgrade that is absent", "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\n\r\n", "GET origin path=/ host=a 1.1 nobody"},
		{"9110 7.8: Upgrade is ignored in 1.0", "GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", "GET origin path=/ host= 1.0 nobody close"},

		{"9110 10.1.1: Expect", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-Continue\r\n\r\n", "POST origin path=/ host=a 1.1 length=1 continue"},
		{"9110 10.1.1: Expect is ignored in 1.0", "POST / HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n", "POST origin path=/ host= 1.0 length=1 close"},
		{"9110 10.1.1: other expectation", "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue, tea=\"a,b\"\r\n\r\n", "POST origin path=/ host=a 1.1 nobody continue expect"},
		{"9110 10.1.4: TE trailers", "GET / HTTP/1.1\r\nHost: a\r\nTE: gzip;q=0.5, Trailers\r\nConnection: TE\r\n\r\n", "GET origin path=/ host=a 1.1 nobody trailers"},
		{"9110 10.1.4: TE without trailers", "GET / HTTP/1.1\r\nHost: a\r\nTE: xtrailers\r\n\r\n", "GET origin path=/ host=a 1.1 nobody"},
		{"9110 7.6.2: Max-Forwards", "TRACE / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 3\r\n\r\n", "TRACE origin path=/ host=a 1.1 nobody forwards=3"},
		{"9110 7.6.2: Max-Forwards of zero", "OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n", "OPTIONS asterisk path= host=a 1.1 nobody forwards=0"},
		{"9110 7.6.2: Max-Forwards that does not fit", "TRACE / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 99999999999999999999\r\n\r\n", fmt.Sprintf("TRACE origin path=/ host=a 1.1 nobody forwards=%d", math.MaxInt64)},
		{"9110 7.6.2: other methods ignore it", "GET / HTTP/1.1\r\nHost: a\r\nMax-Forwards: x\r\nMax-Forwards: 1\r\n\r\n", "GET origin path=/ host=a 1.1 nobody"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			whole := parseWhole(&request{}, tt.in, http1.Limits{})
			if whole.N != len(tt.in) {
				t.Fatalf("got %v with n=%d, want n=%d", whole, whole.N, len(tt.in))
			}
			r := &whole.Message.(*request).Request
			if got := requestSummary(r); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if want := strings.TrimLeft(tt.in, "\r\n"); string(r.Raw) != want {
				t.Errorf("Raw is %q, want %q", r.Raw, want)
			}
			checkSpans(t, &r.Head)
			compareRequest(t, r)
			checkSplits(t, &request{}, tt.in, http1.Limits{}, whole)
			// What follows belongs to others.
			if more := parseReads(&request{}, tt.in+"\x00\n x", http1.Limits{}, 1, len(tt.in)+4); diffOutcome(whole, more) != "" {
				t.Errorf("followed by other bytes: %s", diffOutcome(whole, more))
			}
		})
	}
}

// Each input ends with the byte at which it must be refused.
func TestRequestRefused(t *testing.T) {
	const get = "GET / HTTP/1.1\r\nHost: a\r\n"
	const post = "POST / HTTP/1.1\r\nHost: a\r\n"
	const (
		bareLF     = "400 line feed without carriage return"
		bareCR     = "400 carriage return without line feed"
		badMethod  = "400 invalid method"
		badTarget  = "400 invalid request target"
		badVersion = "400 invalid protocol version"
		badName    = "400 invalid field name"
		control    = "400 control character in a field value"
		badHost    = "400 invalid Host"
		badLength  = "400 invalid Content-Length"
		badCoding  = "400 invalid Transfer-Encoding"
		unknownTE  = "501 unknown transfer coding"
		twoFrames  = "400 both Content-Length and Transfer-Encoding"
	)
	for _, tt := range []struct{ name, in, want string }{
		{"9112 2.2: bare LF before the request line", "\n", bareLF},
		{"9112 2.2: bare CR before the request line", "\rG", bareCR},
		{"9112 3: white space before the request line", " ", badMethod},
		{"9112 3: no method", "\r\n ", badMethod},
		{"9110 9.1: method that is no token", "G@", badMethod},
		{"9110 9.1: TLS client hello", "\x16", badMethod},
		{"9112 3: tab after the method", "GET\t", badMethod},
		{"9112 2.2: bare LF after the method", "GET\n", bareLF},
		{"9112 3: line ends after the method", "GET\r", badMethod},
		{"9112 3: two spaces after the method", "GET  ", badTarget},
		{"9112 3: HTTP/0.9", "GET /\r", badTarget},
		{"9112 2.2: HTTP/0.9 with bare LF", "GET /\n", bareLF},
		{"9112 3.2: fragment", "GET /#", badTarget},
		{"9112 3.2: NUL in the target", "GET /\x00", badTarget},
		{"9112 3.2: tab in the target", "GET /\t", badTarget},
		{"9112 3.2: DEL in the target", "GET /\x7f", badTarget},
		{"9112 3.2: non-ASCII in the target", "GET /\xc3", badTarget},
		{"9112 3.2: space in the target", "GET /a b", badVersion},
		{"9112 3.2: no form at all", "GET a ", badTarget},
		{"9112 3.2: only a query", "GET ?a ", badTarget},
		{"9112 3.2.4: asterisk-form is for OPTIONS", "GET * ", "400 request target does not suit the method"},
		{"9112 3.2.4: longer than an asterisk", "OPTIONS ** ", badTarget},
		{"9112 3.2.3: authority-form is for CONNECT", "GET a:80 ", badTarget},
		{"9110 9.3.6: CONNECT needs a port", "CONNECT a ", "400 invalid authority in the request target"},
		{"9110 9.3.6: CONNECT with an empty port", "CONNECT a: ", "400 invalid authority in the request target"},
		{"9110 9.3.6: CONNECT with a path", "CONNECT a:1/ ", "400 invalid authority in the request target"},
		{"9110 9.3.6: CONNECT with origin-form", "CONNECT / ", "400 invalid authority in the request target"},
		{"9110 9.3.6: CONNECT with absolute-form", "CONNECT http://a:1 ", "400 invalid authority in the request target"},
		{"9112 3.2.2: scheme https", "GET https://a/ ", "400 request target with a scheme other than http"},
		{"9112 3.2.2: scheme ftp", "GET ftp://a/ ", "400 request target with a scheme other than http"},
		{"9110 4.2.1: empty host", "GET http:///a ", "400 invalid authority in the request target"},
		{"9110 4.2.1: only a port", "GET http://:80/ ", "400 invalid authority in the request target"},
		{"9110 4.2.4: userinfo", "GET http://u@a/ ", "400 invalid authority in the request target"},
		{"9110 4.2.4: userinfo with password", "GET http://u:1@a/ ", "400 invalid authority in the request target"},
		{"9112 3.2.2: one slash", "GET http:/a ", badTarget},
		{"9112 2.3: garbage version", "GET / X", badVersion},
		{"9112 2.3: lower case", "GET / h", badVersion},
		{"9112 2.3: no minor version", "GET / HTTP/1\r", badVersion},
		{"9112 2.3: letter as minor version", "GET / HTTP/1.x", badVersion},
		{"9112 2.3: two digits as minor version", "GET / HTTP/1.10", badVersion},
		{"9112 2.3: two digits as major version", "GET / HTTP/11", badVersion},
		{"9110 15.6.6: HTTP/2.0", "GET / HTTP/2", "505 unsupported protocol version"},
		{"9110 15.6.6: HTTP/0.9", "GET / HTTP/0", "505 unsupported protocol version"},
		{"9112 3: space after the version", "GET / HTTP/1.1 ", badVersion},
		{"9112 2.2: bare LF after the version", "GET / HTTP/1.1\n", bareLF},
		{"9112 2.2: bare CR after the version", "GET / HTTP/1.1\rH", bareCR},

		{"9112 2.2: white space before the first field", "GET / HTTP/1.1\r\n ", "400 white space before the first field line"},
		{"9112 2.2: tab before the first field", "GET / HTTP/1.1\r\n\t", "400 white space before the first field line"},
		{"9112 5.2: obs-fold", get + " ", "400 folded field line"},
		{"9112 5.2: obs-fold with a tab", get + "\t", "400 folded field line"},
		{"9112 5.1: space before the colon", get + "B ", "400 white space in or after a field name"},
		{"9112 5.1: tab before the colon", get + "B\t", "400 white space in or after a field name"},
		{"9110 5.1: empty name", get + ":", "400 empty field name"},
		{"9110 5.1: NUL in a name", get + "B\x00", badName},
		{"9110 5.1: delimiter in a name", get + "B(", badName},
		{"9110 5.1: non-ASCII in a name", get + "B\xc3", badName},
		{"9110 5.1: name starts with a delimiter", get + "\"", badName},
		{"9112 5: no colon", get + "B\r", "400 field line without a colon"},
		{"9112 2.2: bare LF in a name", get + "B\n", bareLF},
		{"9112 2.2: bare LF as the empty line", get + "\n", bareLF},
		{"9112 2.2: bare CR as the empty line", get + "\rB", bareCR},
		{"9112 2.2: bare LF ends a value", get + "B: c\n", bareLF},
		{"9112 2.2: bare CR in a value", get + "B: c\rd", bareCR},
		{"9112 2.2: two CR", get + "B: c\r\r", bareCR},
		{"9110 5.5: NUL in a value", get + "B: cdefghijklmnopq\x00", control},
		{"9110 5.5: escape in a value", get + "B: \x1b", control},
		{"9110 5.5: vertical tab in a value", get + "B: c\td\x0b", control},
		{"9110 5.5: DEL in a value", get + "B: cdefghijklm\x7f", control},

		{"9112 3.2: no Host", "GET / HTTP/1.1\r\nB: c\r\n\r\n", "400 missing Host"},
		{"9112 3.2: no field at all", "GET / HTTP/1.1\r\n\r\n", "400 missing Host"},
		{"9112 3.2: absolute-form does not replace Host", "GET http://a/ HTTP/1.1\r\n\r\n", "400 missing Host"},
		{"9112 3.2: two Host", get + "Host: b\r\n", "400 more than one Host"},
		{"9112 3.2: the same Host twice", get + "hOST: a\r\n", "400 more than one Host"},
		{"9112 3.2: two Host in 1.0", "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n", "400 more than one Host"},
		{"9110 4.2.1: empty Host", "GET / HTTP/1.1\r\nHost:\r\n", badHost},
		{"9110 4.2.1: empty Host in 1.0", "GET / HTTP/1.0\r\nHost: \r\n", badHost},
		{"9110 7.2: Host with userinfo", "GET / HTTP/1.1\r\nHost: u@a\r\n", badHost},
		{"9110 7.2: Host list", "GET / HTTP/1.1\r\nHost: a,b\r\n", badHost},
		{"9110 7.2: Host with a space", "GET / HTTP/1.1\r\nHost: a b\r\n", badHost},
		{"9110 7.2: Host with a path", "GET / HTTP/1.1\r\nHost: a/\r\n", badHost},
		{"9110 7.2: Host with a scheme", "GET / HTTP/1.1\r\nHost: http://a\r\n", badHost},
		{"9110 7.2: Host non-ASCII", "GET / HTTP/1.1\r\nHost: \xc3\xa4\r\n", badHost},
		{"9110 7.2: Host percent-encoded", "GET / HTTP/1.1\r\nHost: %61\r\n", badHost},
		{"9110 7.2: Host with two ports", "GET / HTTP/1.1\r\nHost: a:1:2\r\n", badHost},
		{"9110 7.2: port with letters", "GET / HTTP/1.1\r\nHost: a:8o\r\n", badHost},
		{"9110 7.2: port out of range", "GET / HTTP/1.1\r\nHost: a:65536\r\n", badHost},
		{"9110 7.2: port too long", "GET / HTTP/1.1\r\nHost: a:000080\r\n", badHost},
		{"9110 7.2: only a port", "GET / HTTP/1.1\r\nHost: :80\r\n", badHost},
		{"3986 3.2.2: IPv6 without brackets", "GET / HTTP/1.1\r\nHost: ::1\r\n", badHost},
		{"3986 3.2.2: IPv6 literal not closed", "GET / HTTP/1.1\r\nHost: [::1\r\n", badHost},
		{"3986 3.2.2: bytes after the IPv6 literal", "GET / HTTP/1.1\r\nHost: [::1]a\r\n", badHost},
		{"3986 3.2.2: IPv6 zone", "GET / HTTP/1.1\r\nHost: [fe80::1%25a]\r\n", badHost},
		{"3986 3.2.2: IPvFuture", "GET / HTTP/1.1\r\nHost: [v1.a]\r\n", badHost},

		{"9112 6.3: the same Content-Length twice", post + "Content-Length: 5\r\nContent-Length: 5\r\n", "400 more than one Content-Length"},
		{"9112 6.3: two Content-Length", post + "Content-Length: 5\r\ncontent-length: 6\r\n", "400 more than one Content-Length"},
		{"9112 6.3: Content-Length list", post + "Content-Length: 5, 5\r\n", badLength},
		{"9110 8.6: empty Content-Length", post + "Content-Length: \r\n", badLength},
		{"9110 8.6: plus sign", post + "Content-Length: +5\r\n", badLength},
		{"9110 8.6: minus sign", post + "Content-Length: -5\r\n", badLength},
		{"9110 8.6: inner space", post + "Content-Length: 5 5\r\n", badLength},
		{"9110 8.6: hexadecimal", post + "Content-Length: 0x5\r\n", badLength},
		{"9110 8.6: fraction", post + "Content-Length: 5.0\r\n", badLength},
		{"9110 8.6: one more than fits", post + "Content-Length: 9223372036854775808\r\n", badLength},
		{"9110 8.6: wraps around 64 bits", post + "Content-Length: 18446744073709551621\r\n", badLength},
		{"9112 6.3: Content-Length, then Transfer-Encoding", post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", twoFrames},
		{"9112 6.3: Transfer-Encoding, then Content-Length", post + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", twoFrames},
		{"9112 6.1: Transfer-Encoding twice", post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "400 more than one Transfer-Encoding"},
		{"9112 6.1: Transfer-Encoding of another kind alone", post + "Transfer-Encoding: gzip\r\n", unknownTE},
		{"9112 6.1: chunked twice", post + "Transfer-Encoding: chunked, chunked\r\n", badCoding},
		{"9112 6.1: chunked twice around another", post + "Transfer-Encoding: chunked, gzip, chunked\r\n", badCoding},
		{"9112 6.3: chunked not last", post + "Transfer-Encoding: chunked, gzip\r\n", badCoding},
		{"9112 6.3: not chunked", post + "Transfer-Encoding: identity\r\n", unknownTE},
		{"9112 6.1: prefixed", post + "Transfer-Encoding: xchunked\r\n", unknownTE},
		{"9112 6.1: quoted", post + "Transfer-Encoding: \"chunked\"\r\n", badCoding},
		{"9112 6.1: vertical tab", post + "Transfer-Encoding: chunked\x0b", control},
		{"9112 6.1: leading comma", post + "Transfer-Encoding: ,chunked\r\n", badCoding},
		{"9112 6.1: trailing comma", post + "Transfer-Encoding: chunked,\r\n", badCoding},
		{"9112 6.1: empty", post + "Transfer-Encoding:\r\n", badCoding},
		{"9112 7.1: chunked with a parameter", post + "Transfer-Encoding: chunked;a=b\r\n", badCoding},
		{"9112 6.1: coding that is not implemented", post + "Transfer-Encoding: gzip, chunked\r\n", "501 unknown transfer coding"},
		{"9112 6.1: two codings that are not implemented", post + "Transfer-Encoding: a,b , Chunked\r\n", "501 unknown transfer coding"},
		{"9112 6.1: Transfer-Encoding in 1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n", "400 Transfer-Encoding in an HTTP/1.0 message"},

		{"9110 7.6.2: invalid Max-Forwards", "TRACE / HTTP/1.1\r\nHost: a\r\nMax-Forwards: -1\r\n\r\n", "400 invalid Max-Forwards"},
		{"9110 7.6.2: empty Max-Forwards", "OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards:\r\n\r\n", "400 invalid Max-Forwards"},
		{"9110 7.6.2: two Max-Forwards", "OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 1\r\nMax-Forwards: 1\r\n\r\n", "400 invalid Max-Forwards"},
		{"9110 7.6.1: absurdly many connection options", get + "Connection: " + strings.Repeat("a, ", 33) + "\r\n\r\n", "400 too many connection options"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			checkRefused(t, &request{}, tt.in, http1.Limits{}, tt.want)
		})
	}
}

func TestRequestLimits(t *testing.T) {
	const head = "GET /abc HTTP/1.1\r\nHost: a\r\nB: c\r\n\r\n"
	t.Run("at the limits", func(t *testing.T) {
		lim := http1.Limits{HeadBytes: len(head), Fields: 2, TargetBytes: 4}
		whole := parseWhole(&request{}, head, lim)
		if whole.N != len(head) {
			t.Fatalf("got %v", whole)
		}
		checkSplits(t, &request{}, head, lim, whole)
	})
	for _, tt := range []struct {
		name string
		in   string // ends with the byte that is one too many
		lim  http1.Limits
		want string
	}{
		{"head bytes", head[:len(head)-1], http1.Limits{HeadBytes: len(head) - 1}, "431 head too large"},
		{"head bytes end within a name", head[:30], http1.Limits{HeadBytes: 30}, "431 head too large"},
		{"head bytes end within the method", "GE", http1.Limits{HeadBytes: 2}, "431 head too large"},
		{"head bytes end within the target", "GET /a", http1.Limits{HeadBytes: 6}, "414 request target too long"},
		{"head bytes end within empty lines", "\r\n\r\n", http1.Limits{HeadBytes: 4}, "431 head too large"},
		{"fields", "GET /abc HTTP/1.1\r\nHost: a\r\nB", http1.Limits{Fields: 1}, "431 too many fields"},
		{"target bytes", "GET /abc", http1.Limits{TargetBytes: 3}, "414 request target too long"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			checkRefused(t, &request{}, tt.in, tt.lim, tt.want)
		})
	}
}

// RFC 9110 section 9.
func TestMethods(t *testing.T) {
	for method, want := range map[string]http1.Method{
		"GET": http1.GET, "HEAD": http1.HEAD, "POST": http1.POST, "PUT": http1.PUT, "DELETE": http1.DELETE,
		"OPTIONS": http1.OPTIONS, "PATCH": http1.PATCH, "CONNECT": http1.CONNECT, "TRACE": http1.TRACE,
		"GETS": http1.OtherMethod, "head": http1.OtherMethod, "PROPFIND": http1.OtherMethod,
	} {
		target := "/"
		if want == http1.CONNECT {
			target = "a:80"
		}
		o := parseWhole(&request{}, method+" "+target+" HTTP/1.1\r\nHost: a\r\n\r\n", http1.Limits{})
		if o.N == 0 || o.Message.(*request).Method != want {
			t.Errorf("%s: %v, want method %d", method, o, want)
		}
	}
}

// RFC 9110 section 7.6.1, and 11.7 for the Proxy- fields.
func TestHopByHop(t *testing.T) {
	const in = "GET / HTTP/1.1\r\n" +
		"Host: a\r\n" +
		"Connection: x-gone, HOST, Content-Length, transfer-encoding, te\r\n" +
		"X-Gone: 1\r\n" +
		"x-gONE: 2\r\n" +
		"X-Gone-Not: 3\r\n" +
		"X-Gong: 4\r\n" +
		"Content-Length: 4\r\n" +
		"Keep-Alive: timeout=5\r\n" +
		"Proxy-Connection: keep-alive\r\n" +
		"Proxy-Authorization: Basic x\r\n" +
		"Proxy-Authenticate: Basic\r\n" +
		"TE: trailers\r\n" +
		"Trailer: X-Sum\r\n" +
		"Upgrade: x\r\n" +
		"connection: via\r\n" +
		"Via: 1.1 b\r\n\r\n"
	o := parseWhole(&request{}, in, http1.Limits{})
	if o.N != len(in) {
		t.Fatalf("got %v", o)
	}
	want := []string{
		"Host=a",
		"-Connection=x-gone, HOST, Content-Length, transfer-encoding, te",
		"-X-Gone=1",
		"-x-gONE=2",
		"X-Gone-Not=3",
		"X-Gong=4",
		"Content-Length=4",
		"-Keep-Alive=timeout=5",
		"-Proxy-Connection=keep-alive",
		"-Proxy-Authorization=Basic x",
		"-Proxy-Authenticate=Basic",
		"-TE=trailers",
		"Trailer=X-Sum",
		"-Upgrade=x",
		"-connection=via",
		"-Via=1.1 b",
	}
	if diff := cmp.Diff(want, fieldList(o.Message.head())); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	t.Run("Transfer-Encoding", func(t *testing.T) {
		o := parseWhole(&request{}, "POST / HTTP/1.1\r\nHost: a\r\nConnection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n", http1.Limits{})
		if f := o.Message.head().Fields[2]; f.Hop || f.ID != http1.TransferEncoding {
			t.Errorf("got %+v", f)
		}
	})
}

func TestKnownNames(t *testing.T) {
	for id := http1.OtherName + 1; id <= http1.Server; id++ {
		for _, name := range []string{id.String(), strings.ToUpper(id.String())} {
			in := "HTTP/1.1 200 OK\r\n" + name + ": 1\r\n\r\n"
			if id == http1.TransferEncoding {
				in = strings.Replace(in, ": 1", ": chunked", 1)
			}
			o := parseWhole(&response{}, in, http1.Limits{})
			if o.N == 0 || o.Message.head().Fields[0].ID != id {
				t.Errorf("%s: got %v, want ID %d", name, o, id)
			}
		}
		// One other character makes another name.
		other := id.String()[:len(id.String())-1] + "_"
		o := parseWhole(&response{}, "HTTP/1.1 200 OK\r\n"+other+": 1\r\n\r\n", http1.Limits{})
		if o.N == 0 || o.Message.head().Fields[0].ID != http1.OtherName {
			t.Errorf("%s: got %v", other, o)
		}
	}
	if got := http1.Name(200).String() + http1.OtherName.String(); got != "" {
		t.Errorf("unknown names have the text %q", got)
	}
}

func TestHeadLookups(t *testing.T) {
	const in = "GET / HTTP/1.1\r\nHost: a\r\nX-Beta:  1 \r\nx-beta: Two, 3\r\nVia: 1.0 b\r\nVia: 1.1 c\r\nX-Empty:\r\n\r\n"
	var r http1.Request
	var s http1.Scan
	if n, err := r.Parse([]byte(in), &s, http1.Limits{}); n != len(in) {
		t.Fatalf("n=%d, %v", n, err)
	}
	for _, tt := range []struct {
		name, value string
		want        bool
	}{
		{"x-beta", "1", true},
		{"x-beta", "Two, 3", true},
		{"x-beta", "two, 3", false},
		{"x-beta", "Two", false},
		{"x-beta", "", false},
		{"x-empty", "", true},
		{"x-absent", "", false},
		{"host", "a", true},
	} {
		if got := r.HasValue(tt.name, tt.value); got != tt.want {
			t.Errorf("HasValue(%q, %q) = %v, want %v", tt.name, tt.value, got, tt.want)
		}
	}
	if v, ok := r.Get(http1.Via); !ok || string(v.Of(r.Raw)) != "1.0 b" {
		t.Errorf("Get(Via) = %q, %v", v.Of(r.Raw), ok)
	}
	if _, ok := r.Get(http1.Connection); ok {
		t.Error("Get(Connection) found one")
	}
	if _, ok := r.Get(http1.OtherName); ok {
		t.Error("Get(OtherName) found one")
	}
}

// RFC 3986 section 3.2.2: IPv6address, checked against net/netip.
func TestHostIPv6(t *testing.T) {
	for _, addr := range []string{
		"::", "::1", "1::", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8", "1::8", "2001:DB8::a:0f",
		"::1.2.3.4", "::ffff:1.2.3.4", "1:2:3:4:5:6:1.2.3.4", "1::4:5:6:1.2.3.4", "::3:4:5:6:7:1.2.3.4",
		"", ":", ":::", "1", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7:8::", "1::2::3", "12345::", ":1", "1:",
		"1:2:3:4:5:6:7:", "g::", "::g", "1.2.3.4", "::1.2.3", "::1.2.3.4.5", "::1.2.3.256", "::01.2.3.4", "::1.2.3.4:5",
		"1:2:3:4:5:6:7:1.2.3.4", "::2:3:4:5:6:7:1.2.3.4", "::1.2..4", "::.1.2.3", "::1.2.3.", "::12345.1.1.1", "::a.1.1.1", "fe80::1%a",
		"1:2:3:4:5:6:7:8:", "::1:2:3:4:5:6:7:8", "1:2:3:4::5:6:7:8", "0000:0::", "00000::",
	} {
		parsed, err := netip.ParseAddr(addr)
		want := err == nil && parsed.Is6() && parsed.Zone() == ""
		o := parseWhole(&request{}, "GET / HTTP/1.1\r\nHost: ["+addr+"]\r\n\r\n", http1.Limits{})
		if got := o.N > 0; got != want {
			t.Errorf("%q: got %v, want %v", addr, o, want)
		}
	}
}

// One Request serves many heads: nothing of the last one shows in the next.
func TestRequestReuse(t *testing.T) {
	var r http1.Request
	var s http1.Scan
	for _, tt := range []struct{ in, want string }{
		{"OPTIONS http://b/c?d HTTP/1.1\r\nHost: a\r\nExpect: 100-continue, x\r\nTE: trailers\r\nMax-Forwards: 7\r\nContent-Length: 3\r\nConnection: close, upgrade\r\nUpgrade: x\r\n\r\n",
			"OPTIONS absolute path=/c query=d host=b 1.1 length=3 close upgrade continue expect trailers forwards=7"},
		{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET origin path=/ host=a 1.1 nobody"},
	} {
		if n, err := r.Parse([]byte(tt.in), &s, http1.Limits{}); n != len(tt.in) {
			t.Fatalf("n=%d, %v", n, err)
		}
		if got := requestSummary(&r); got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
	}
}

func TestOnlyAndDrop(t *testing.T) {
	var r http1.Request
	head := []byte("GET / HTTP/1.1\r\nHost: a\r\nVia: b\r\nX-Request-Id: 1\r\nReferer: 2\r\nx-CUSTOM: 3\r\nreferer: 4\r\nX-Custom: 5\r\nX-Customs: 6\r\nConnection: via\r\n\r\n")
	if n, err := r.Parse(head, new(http1.Scan), http1.Limits{}); n != len(head) || err != nil {
		t.Fatal(n, err)
	}
	if v, ok := r.Only(http1.XRequestID); !ok || string(v.Of(r.Raw)) != "1" {
		t.Errorf("the only one is %v, %t", v, ok)
	}
	for _, name := range []http1.Name{http1.Referer, http1.Via, http1.Date} {
		if v, ok := r.Only(name); ok {
			t.Errorf("%v: %v", name, v)
		}
	}
	r.Drop([]string{"x-custom", "referer", "none"})
	var left []string
	for _, f := range r.Fields {
		if !f.Hop {
			left = append(left, string(f.Value.Of(r.Raw)))
		}
	}
	if got := strings.Join(left, " "); got != "a 1 6" {
		t.Errorf("left are %s", got)
	}
}
