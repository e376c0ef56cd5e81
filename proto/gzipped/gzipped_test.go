package gzipped_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"reverseproxy/proto/gzipped"
)

// TestCompress: what comes out is what went in, also when compressors are used again, by
// several at once.
func TestCompress(t *testing.T) {
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for i := range 50 {
				level := []int{gzipped.Fast, 4, gzip.BestCompression}[i%3]
				p := []byte(strings.Repeat(fmt.Sprint(rand.Int64()), rand.IntN(1000)))
				z, err := gzip.NewReader(bytes.NewReader(gzipped.Compress(p, level)))
				if err != nil {
					t.Error(err)
					return
				}
				if got, err := io.ReadAll(z); err != nil || !bytes.Equal(got, p) {
					t.Errorf("level %d, %d bytes: got %d bytes, error %v", level, len(p), len(got), err)
				}
			}
		})
	}
	all.Wait()
}

// BenchmarkCompress: 1 KB.
func BenchmarkCompress(b *testing.B) {
	p := []byte(strings.Repeat("http://10.0.0.1:80\n", 50))
	b.ReportAllocs()
	for b.Loop() {
		gzipped.Compress(p, gzipped.Fast)
	}
}
