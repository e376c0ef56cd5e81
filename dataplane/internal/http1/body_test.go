package http1_test

import (
	"fmt"
	"strings"
	"testing"

	"reverseproxy/dataplane/internal/http1"
)

// follow passes p through a body in reads that end at the given offsets. It
// checks that Advance and Decode agree, and returns the payload, how many bytes
// belong to the body, and the error.
func follow(t *testing.T, f http1.Framing, length int64, p string, ends ...int) (payload string, n int, done bool, err *http1.Error) {
	t.Helper()
	var advance, decode http1.Body
	advance.Start(f, length)
	decode.Start(f, length)
	var out []byte
	for _, end := range ends {
		if n >= end {
			continue
		}
		k, err := advance.Advance([]byte(p[n:end]))
		var k2 int
		var err2 *http1.Error
		out, k2, err2 = decode.Decode(out, []byte(p[n:end]))
		if k != k2 || err != err2 || advance.Done() != decode.Done() {
			t.Fatalf("Advance: %d, %v, %v; Decode: %d, %v, %v", k, err, advance.Done(), k2, err2, decode.Done())
		}
		n += k
		if err != nil {
			return string(out), n, false, err
		}
		if advance.Done() {
			break
		}
		if n != end {
			t.Fatalf("took %d of %d bytes and is not done", n, end)
		}
	}
	return string(out), n, advance.Done(), nil
}

// checkBodySplits checks that all splits of p give the same as one read.
func checkBodySplits(t *testing.T, f http1.Framing, length int64, p string) {
	t.Helper()
	result := func(ends ...int) string {
		payload, n, done, err := follow(t, f, length, p, ends...)
		return fmt.Sprintf("%q %d %v %v", payload, n, done, err)
	}
	want := result(len(p))
	for i := range len(p) {
		if got := result(i, len(p)); got != want {
			t.Errorf("split at %d: got %s, want %s", i, got, want)
		}
	}
	if got := result(upTo(len(p))...); got != want {
		t.Errorf("byte by byte: got %s, want %s", got, want)
	}
}

func TestBody(t *testing.T) {
	for _, tt := range []struct {
		name     string
		framing  http1.Framing
		length   int64
		in, rest string // rest is not part of the body
		payload  string
	}{
		{"no body", http1.NoBody, 0, "", "GET", ""},
		{"length of zero", http1.Length, 0, "", "GET", ""},
		{"length", http1.Length, 5, "hello", "GET", "hello"},
		{"9112 7.1: one chunk", http1.Chunked, 0, "5\r\nhello\r\n0\r\n\r\n", "GET", "hello"},
		{"9112 7.1: no chunk", http1.Chunked, 0, "0\r\n\r\n", "\r\n", ""},
		{"9112 7.1: several zeros as last chunk", http1.Chunked, 0, "000\r\n\r\n", "x", ""},
		{"9112 7.1: hexadecimal of either case", http1.Chunked, 0, "a\r\n0123456789\r\nB\r\n0123456789a\r\n0\r\n\r\n", "x", "01234567890123456789a"},
		{"9112 7.1: leading zeros up to 15 digits", http1.Chunked, 0, "000000000000005\r\nhello\r\n0\r\n\r\n", "x", "hello"},
		{"9112 7.1: payload that looks like framing", http1.Chunked, 0, "7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n", "x", "\r\n0\r\n\r\n"},
		{"9112 7.1.1: extension", http1.Chunked, 0, "5;a\r\nhello\r\n0;b=c;d\r\n\r\n", "x", "hello"},
		{"9112 7.1.1: quoted extension", http1.Chunked, 0, "5;a=\"b;\t\\\"\\\\c\xff\";d=e\r\nhello\r\n0;f=\"\"\r\n\r\n", "x", "hello"},
		{"9112 7.1.2: trailers", http1.Chunked, 0, "1\r\na\r\n0\r\nX-Sum: 5\r\nServer-Timing:\tx\xff \r\nEmpty:\r\n\r\n", "x", "a"},
		{"9112 7.1.2: trailer with a long name", http1.Chunked, 0, "0\r\n" + strings.Repeat("proxy-authorization", 30) + ": b\r\n\r\n", "x", ""},
		{"9112 7.1.2: trailers whose names only resemble", http1.Chunked, 0, "0\r\nContent-Lengt: 1\r\nContent-Lengthy: 1\r\nHos: t\r\nProxy-Authorization-: x\r\n\r\n", "x", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := tt.in + tt.rest
			payload, n, done, err := follow(t, tt.framing, tt.length, p, len(p))
			if payload != tt.payload || n != len(tt.in) || !done || err != nil {
				t.Errorf("got %q, n=%d, done=%v, %v; want %q, n=%d", payload, n, done, err, tt.payload, len(tt.in))
			}
			checkBodySplits(t, tt.framing, tt.length, p)
			if tt.framing == http1.Chunked {
				checkDecoded(t, p, payload, n)
			}
			for i := range len(tt.in) {
				if _, n, done, err := follow(t, tt.framing, tt.length, p[:i], i); n != i || done || err != nil {
					t.Errorf("first %d bytes: n=%d, done=%v, %v", i, n, done, err)
				}
			}
		})
	}
}

// RFC 9112 section 6.3 8: only the end of the connection ends the body.
func TestBodyUntilClose(t *testing.T) {
	payload, n, done, err := follow(t, http1.UntilClose, 0, "0\r\n\r\n", 2, 5)
	if payload != "0\r\n\r\n" || n != 5 || done || err != nil {
		t.Errorf("got %q, n=%d, done=%v, %v", payload, n, done, err)
	}
}

// Each input ends with the byte at which it must be refused.
func TestBodyRefused(t *testing.T) {
	const (
		size      = "invalid chunk size"
		extension = "invalid chunk extension"
		bareLF    = "line feed without carriage return"
		bareCR    = "carriage return without line feed"
		name      = "field not allowed in trailers"
	)
	type row struct{ name, in, want string }
	rows := []row{
		{"9112 7.1: no size", "\r", size},
		{"9112 7.1: no size, only an extension", ";", size},
		{"9112 7.1: not hexadecimal", "g", size},
		{"9112 7.1: 0x", "0x", size},
		{"9112 7.1: sign", "+", size},
		{"9112 7.1: minus sign", "-", size},
		{"9112 7.1: underscore", "1_", size},
		{"9112 7.1: space before the size", " ", size},
		{"9112 7.1: space after the size", "5 ", size},
		{"9112 7.1: tab after the size", "5\t", size},
		{"9112 7.1: 16 digits", "0000000000000005", size},
		{"9112 7.1: size overflows 64 bits", "fffffffffffffffff"[:16], size},
		{"9112 2.2: bare LF after the size", "5\n", bareLF},
		{"9112 2.2: bare CR after the size", "5\rh", bareCR},
		{"9112 2.2: bare LF before the size", "\n", bareLF},
		{"9112 7.1: chunk is longer than its size", "5\r\nhello!", "chunk longer than its size"},
		{"9112 7.1: bare LF after a chunk", "5\r\nhello\n", "chunk longer than its size"},
		{"9112 7.1: bare CR after a chunk", "5\r\nhello\r0", bareCR},
		{"9112 7.1: empty line between chunks", "1\r\na\r\n\r", size},
		{"9112 7.1.1: no name", "5;\r", extension},
		{"9112 7.1.1: two semicolons", "5;;", extension},
		{"9112 7.1.1: space before the name", "5; ", extension},
		{"9112 7.1.1: space after the name", "5;a ", extension},
		{"9112 7.1.1: name is no token", "5;a@", extension},
		{"9112 7.1.1: no value", "5;a=\r", extension},
		{"9112 7.1.1: value is no token", "5;a=b=", extension},
		{"9112 7.1.1: bytes after the quotes", "5;a=\"b\"c", extension},
		{"9112 7.1.1: CR in quotes", "5;a=\"\r", extension},
		{"9112 7.1.1: NUL in quotes", "5;a=\"\x00", extension},
		{"9112 7.1.1: escaped CR in quotes", "5;a=\"\\\r", extension},
		{"9112 2.2: bare LF in an extension", "5;a\n", bareLF},
		{"9112 2.2: bare LF in quotes", "5;a=\"\n", bareLF},
		{"9112 2.2: bare CR after an extension", "5;a\r;", bareCR},
		{"9112 7.1.1: too long", "5;" + strings.Repeat("a", 16<<10+1), "chunk extensions too large"},
		{"9112 7.1.1: too long over many chunks", strings.Repeat("1;abcdefg\r\na\r\n", 2048) + "1;a", "chunk extensions too large"},
		{"9112 2.2: bare LF after the last chunk", "0\r\n\n", bareLF},
		{"9112 2.2: bare CR after the last chunk", "0\r\n\rx", bareCR},
		{"9112 5.2: trailer that starts with a space", "0\r\n ", "folded field line"},
		{"9112 5.2: folded trailer", "0\r\nA: b\r\n\t", "folded field line"},
		{"9112 5.1: space before the colon", "0\r\nA ", "white space in or after a field name"},
		{"9110 5.1: empty name", "0\r\n:", "empty field name"},
		{"9110 5.1: invalid name", "0\r\nA@", "invalid field name"},
		{"9110 5.1: invalid first byte of a name", "0\r\n\x80", "invalid field name"},
		{"9112 5: no colon", "0\r\nA\r", "field line without a colon"},
		{"9112 2.2: bare LF in a trailer", "0\r\nA: b\n", bareLF},
		{"9112 2.2: bare CR in a trailer", "0\r\nA: b\rc", bareCR},
		{"9110 5.5: NUL in a trailer", "0\r\nA: \x00", "control character in a field value"},
		{"9112 7.1.2: too long", "0\r\nA:" + strings.Repeat("a", 8<<10-1), "trailers too large"},
	}
	for _, n := range []string{
		"Content-Length", "transfer-encoding", "HOST", "Trailer", "Connection", "Keep-Alive", "Proxy-Connection", "TE", "Upgrade",
		"Via", "Max-Forwards", "Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Expect",
		"Authorization", "Proxy-Authorization", "Proxy-Authenticate", "WWW-Authenticate", "Cookie", "Set-Cookie",
		"Content-Encoding", "Content-Type", "Content-Range",
	} {
		rows = append(rows, row{"9110 6.5.1: " + n, "0\r\nA: b\r\n" + n + ":", name})
	}
	for _, tt := range rows {
		t.Run(tt.name, func(t *testing.T) {
			if _, _, done, err := follow(t, http1.Chunked, 0, tt.in[:len(tt.in)-1], len(tt.in)-1); done || err != nil {
				t.Errorf("without the last byte: done=%v, %v", done, err)
			}
			_, n, _, err := follow(t, http1.Chunked, 0, tt.in+"\r\n\r\n", len(tt.in)+4)
			if err == nil || err.Reason != tt.want || err.Status != 400 || n != len(tt.in)-1 {
				t.Errorf("got n=%d, %v; want n=%d, %s", n, err, len(tt.in)-1, tt.want)
			}
			if len(tt.in) < 100 {
				checkBodySplits(t, http1.Chunked, 0, tt.in+"\r\n\r\n")
			}
		})
	}
}

// A long extension and a long trailer that stay within their limits.
func TestBodyLimits(t *testing.T) {
	p := "1;" + strings.Repeat("a", 16<<10-2) + "\r\na\r\n0\r\nA:" + strings.Repeat("b", 8<<10-6) + "\r\n\r\n"
	payload, n, done, err := follow(t, http1.Chunked, 0, p, len(p))
	if payload != "a" || n != len(p) || !done || err != nil {
		t.Errorf("got %q, n=%d of %d, done=%v, %v", payload, n, len(p), done, err)
	}
}

// The largest chunk that can be announced: its size is neither negative nor cut.
func TestBodyLargestChunk(t *testing.T) {
	var b http1.Body
	b.Start(http1.Chunked, 0)
	n, err := b.Advance([]byte("fffffffffffffff\r\n" + strings.Repeat("\n", 1000)))
	if n != 1017 || err != nil || b.Done() {
		t.Errorf("n=%d, %v, done=%v", n, err, b.Done())
	}
}

// Decode may write over its input.
func TestBodyDecodeInPlace(t *testing.T) {
	p := []byte("3;x\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\nA: b\r\n\r\n")
	var b http1.Body
	b.Start(http1.Chunked, 0)
	out, n, err := b.Decode(p[:0], p)
	if string(out) != "abc0123456789abcdef" || n != len(p) || err != nil || !b.Done() {
		t.Errorf("got %q, n=%d, %v, done=%v", out, n, err, b.Done())
	}
}

// Start forgets what was before.
func TestBodyReuse(t *testing.T) {
	var b http1.Body
	if !b.Done() {
		t.Error("the zero value is not done")
	}
	for range 3 {
		b.Start(http1.Chunked, 0)
		p := []byte("1;" + strings.Repeat("a", 10000) + "\r\na\r\n0\r\nB: " + strings.Repeat("b", 6000) + "\r\n\r\n")
		if n, err := b.Advance(p); n != len(p) || err != nil || !b.Done() {
			t.Fatalf("n=%d, %v, done=%v", n, err, b.Done())
		}
	}
}
