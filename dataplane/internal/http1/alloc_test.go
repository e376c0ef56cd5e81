//go:build !race

package http1_test

import (
	"testing"

	"reverseproxy/dataplane/internal/http1"
)

// The race detector allocates, hence the build tag.
func TestNoAllocations(t *testing.T) {
	var req http1.Request
	var resp http1.Response
	var body http1.Body
	get, answer, chunks := []byte(browserRequest), []byte(smallResponse), chunkedBody(64<<10, 4<<10)
	bad := []byte("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n")
	busy := []byte("OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\nConnection: keep-alive, x-a, upgrade\r\nUpgrade: x\r\nX-A: b\r\n" +
		"Expect: 100-continue, b\r\nTE: trailers\r\nMax-Forwards: 1\r\nTransfer-Encoding: chunked\r\n\r\n")
	out := make([]byte, 0, len(chunks))
	for _, tt := range []struct {
		name string
		run  func()
	}{
		{"request", func() {
			var s http1.Scan
			if n, _ := req.Parse(get, &s, http1.Limits{}); n == 0 || !req.HasValue("accept-encoding", "gzip, deflate, br") {
				panic("not parsed")
			}
		}},
		{"request with every special field", func() {
			var s http1.Scan
			if n, _ := req.Parse(busy, &s, http1.Limits{}); n == 0 {
				panic("not parsed")
			}
		}},
		{"request in pieces", func() {
			var s http1.Scan
			for i := 0; i < len(get); i += 50 {
				if n, err := req.Parse(get[:i], &s, http1.Limits{}); n != 0 || err != nil {
					panic("too early")
				}
			}
			if n, _ := req.Parse(get, &s, http1.Limits{}); n == 0 {
				panic("not parsed")
			}
		}},
		{"refused request", func() {
			var s http1.Scan
			if _, err := req.Parse(bad, &s, http1.Limits{}); err == nil {
				panic("not refused")
			}
		}},
		{"response", func() {
			var s http1.Scan
			if n, _ := resp.Parse(answer, &s, http1.Limits{}, http1.GET); n == 0 {
				panic("not parsed")
			}
		}},
		{"body", func() {
			body.Start(http1.Chunked, 0)
			if _, err := body.Advance(chunks); err != nil || !body.Done() {
				panic("not done")
			}
			body.Start(http1.Chunked, 0)
			if _, _, err := body.Decode(out, chunks); err != nil || !body.Done() {
				panic("not done")
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if n := testing.AllocsPerRun(100, tt.run); n != 0 {
				t.Errorf("%v allocations, want none", n)
			}
		})
	}
}
