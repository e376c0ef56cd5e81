package compile_test

import (
	"fmt"
	"strings"
	"testing"

	"reverseproxy/controlplane/internal/compile"
	"reverseproxy/controlplane/internal/config"
	"reverseproxy/proto/routetable"
)

// large is a file of n endpoints with three backends each, as a generator writes
// them.
func large(n int) []byte {
	var b strings.Builder
	b.WriteString("port: 8000\nendpoints:\n")
	for i := range n {
		fmt.Fprintf(&b, "- from: /shop/%d/*\n  host: tenant-%d.example.com\n  pool:\n", i, i%1000)
		for j := range 3 {
			fmt.Fprintf(&b, "  - http://10.%d.%d.%d:8080\n", i>>16, i>>8&0xff, (i+j)&0xff)
		}
	}
	return []byte(b.String())
}

// BenchmarkLoad is the whole way from bytes to a table with a version. The time
// per endpoint must not grow with their number.
func BenchmarkLoad(b *testing.B) {
	for _, n := range []int{100, 10_000, 100_000} {
		data := large(n)
		b.Run(fmt.Sprintf("endpoints=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c, err := config.Load("f", data)
				if err != nil {
					b.Fatal(err)
				}
				t, err := compile.Compile(c)
				if err != nil {
					b.Fatal(err)
				}
				if routetable.Version(t) == "" {
					b.Fatal("no version")
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/endpoint")
		})
	}
}

// BenchmarkCompile is what Load leaves to do: compile and validate.
func BenchmarkCompile(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		c, err := config.Load("f", large(n))
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("endpoints=%d", n), func(b *testing.B) {
			for b.Loop() {
				if _, err := compile.Compile(c); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/endpoint")
		})
	}
}
