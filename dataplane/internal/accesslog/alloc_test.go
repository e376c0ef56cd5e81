//go:build !race

package accesslog_test

import (
	"testing"

	"reverseproxy/dataplane/internal/accesslog"
)

var formats = []struct {
	name   string
	format accesslog.Format
}{{"JSON", accesslog.JSON}, {"common", accesslog.Common}, {"combined", accesslog.Combined}}

func TestAddDoesNotAllocate(t *testing.T) {
	for _, tt := range formats {
		s := accesslog.New(1).Shard(0)
		l := typical()
		if n := testing.AllocsPerRun(20_000, func() {
			s.Add("p", tt.format, l)
			_, lines := s.Next()
			s.Done(len(lines))
		}); n != 0 {
			t.Errorf("%s: %v allocations", tt.name, n)
		}
	}
}

// typical is what a browser's request makes.
func typical() *accesslog.Line {
	l := sample()
	l.UserAgent = []byte("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36")
	l.Referer = []byte("https://shop.example.com/catalogue/shoes?page=3&sort=price")
	l.Target = []byte("/catalogue/shoes/item-73612?ref=list&utm_source=newsletter")
	l.RequestID = []byte("0123456789abcdef0123456789abcdef")
	l.Version = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	return l
}

// BenchmarkLine is one line, made and put into the ring; the ring is emptied as a
// writer would.
func BenchmarkLine(b *testing.B) {
	for _, tt := range formats {
		b.Run(tt.name, func(b *testing.B) {
			s := accesslog.New(1).Shard(0)
			l := typical()
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				l.Time += 50_000
				s.Add("p", tt.format, l)
				if n++; n%1000 == 0 {
					for _, lines := s.Next(); lines != nil; _, lines = s.Next() {
						s.Done(len(lines))
					}
				}
			}
		})
	}
}
