package http1_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"reverseproxy/dataplane/internal/http1"
)

const browserRequest = "GET /shop/articles/4711?sort=price&page=2 HTTP/1.1\r\n" +
	"Host: shop.example.com\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n" +
	"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n" +
	"Accept-Language: en-US,en;q=0.5\r\n" +
	"Accept-Encoding: gzip, deflate, br\r\n" +
	"Connection: keep-alive\r\n" +
	"Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\r\n"

const smallResponse = "HTTP/1.1 200 OK\r\n" +
	"Server: nginx/1.31.0\r\n" +
	"Date: Mon, 23 Nov 2026 15:00:00 GMT\r\n" +
	"Content-Type: text/plain\r\n" +
	"Content-Length: 1024\r\n" +
	"Connection: keep-alive\r\n\r\n"

// chunkedBody returns a body with size payload bytes in chunks of the same size.
func chunkedBody(size, chunk int) []byte {
	var b bytes.Buffer
	for ; size > 0; size -= chunk {
		n := min(size, chunk)
		fmt.Fprintf(&b, "%x\r\n%s\r\n", n, strings.Repeat("x", n))
	}
	b.WriteString("0\r\n\r\n")
	return b.Bytes()
}

func BenchmarkRequest(b *testing.B) {
	for _, bb := range []struct{ name, in string }{
		{"browser", browserRequest},
		{"small", "GET /index HTTP/1.1\r\nHost: localhost:8000\r\n\r\n"},
		{"30fields", strings.Replace(browserRequest, "\r\n\r\n", "\r\n"+strings.Repeat("Sec-Fetch-Mode: navigate\r\n", 23)+"\r\n", 1)},
	} {
		b.Run(bb.name, func(b *testing.B) {
			p := []byte(bb.in)
			var r http1.Request
			lim := http1.Limits{HeadBytes: 64 << 10, Fields: 100, TargetBytes: 8 << 10}
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			for b.Loop() {
				var s http1.Scan
				if n, err := r.Parse(p, &s, lim); n != len(p) {
					b.Fatal(n, err)
				}
			}
		})
	}
}

// BenchmarkRequestByteByByte shows that the cost per byte does not grow with the
// head.
func BenchmarkRequestByteByByte(b *testing.B) {
	for _, size := range []int{1 << 10, 8 << 10, 64 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			p := []byte("GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", size) + "\r\n\r\n")
			var r http1.Request
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			for b.Loop() {
				var s http1.Scan
				n := 0
				for i := range p {
					n, _ = r.Parse(p[:i+1], &s, http1.Limits{})
				}
				if n != len(p) {
					b.Fatal(n)
				}
			}
		})
	}
}

func BenchmarkResponse(b *testing.B) {
	p := []byte(smallResponse)
	var r http1.Response
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		var s http1.Scan
		if n, err := r.Parse(p, &s, http1.Limits{}, http1.GET); n != len(p) {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkBody64K(b *testing.B) {
	for _, chunk := range []int{64, 4 << 10, 32 << 10} {
		p := chunkedBody(64<<10, chunk)
		b.Run(fmt.Sprintf("advance/chunks=%d", chunk), func(b *testing.B) {
			var body http1.Body
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			for b.Loop() {
				body.Start(http1.Chunked, 0)
				if n, err := body.Advance(p); n != len(p) {
					b.Fatal(n, err)
				}
			}
		})
		b.Run(fmt.Sprintf("decode/chunks=%d", chunk), func(b *testing.B) {
			var body http1.Body
			out := make([]byte, 0, len(p))
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			for b.Loop() {
				body.Start(http1.Chunked, 0)
				if _, n, err := body.Decode(out, p); n != len(p) {
					b.Fatal(n, err)
				}
			}
		})
	}
}

func BenchmarkHasValue(b *testing.B) {
	var r http1.Request
	var s http1.Scan
	if n, err := r.Parse([]byte(browserRequest), &s, http1.Limits{}); n == 0 {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if r.HasValue("x-beta", "1") {
			b.Fatal("found")
		}
	}
}
