package http1_test

import (
	"go/build"
	"slices"
	"strings"
	"testing"

	"reverseproxy/dataplane/internal/http1"
)

// Every byte at every offset from where a scan of 8 bytes starts: RFC 9112 section
// 3.2 for targets, RFC 9110 section 5.5 for values, RFC 9112 section 4 for reasons.
func TestEveryByte(t *testing.T) {
	for c := range 256 {
		for offset := range 18 {
			text := strings.Repeat("a", offset) + string([]byte{byte(c)}) + strings.Repeat("b", 17-offset)
			inTarget := c > ' ' && c < 0x7f && c != '#'
			inValue := c == '\t' || c >= ' ' && c != 0x7f
			for _, tt := range []struct {
				kind message
				in   string
				want bool
			}{
				{&request{}, "GET /" + text + " HTTP/1.1\r\nHost: a\r\n\r\n", inTarget},
				{&request{}, "GET / HTTP/1.1\r\nHost: a\r\nX:" + text + "\r\n\r\n", inValue},
				{&response{}, "HTTP/1.1 200 " + text + "\r\n\r\n", inValue},
			} {
				if got := parseWhole(tt.kind, tt.in, http1.Limits{}); (got.N == len(tt.in)) != tt.want {
					t.Errorf("%q: got %v, want accepted=%v", tt.in, got, tt.want)
				}
			}
		}
	}
}

// The package takes bytes and returns values. With sockets, files, clocks or
// loggers inside, both drivers and the fuzzers could not share it.
func TestImports(t *testing.T) {
	allowed := []string{"bytes", "encoding/binary", "math", "math/bits"}
	pkg, err := build.ImportDir(".", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range pkg.Imports {
		if !slices.Contains(allowed, path) {
			t.Errorf("imports %s, allowed are %v", path, allowed)
		}
	}
}
