// Package gzipped compresses bytes in memory (RFC 1952) with compressors that are used
// again. A new one is more than a megabyte, which is most of what a small change of the
// configuration would cost either plane, and makes the collector run.
package gzipped

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"sync"
)

// Fast is the level for what somebody waits for, or what is kept on disk for a while.
const Fast = gzip.BestSpeed

// compressor writes to out.
type compressor struct {
	zip *gzip.Writer
	out bytes.Buffer
}

// atRest are compressors, by level. The collector takes those that nobody uses.
var atRest [gzip.BestCompression + 1]sync.Pool

// Compress returns p compressed. level is one of package gzip, from gzip.BestSpeed to
// gzip.BestCompression. It may be called from several goroutines.
func Compress(p []byte, level int) []byte {
	c := take(level)
	_, err := c.zip.Write(p)
	if err == nil {
		err = c.zip.Close()
	}
	if err != nil {
		panic(fmt.Sprintf("compress into memory: %v", err))
	}
	packed := c.out.Bytes()
	c.out = bytes.Buffer{} // it is the caller's now
	atRest[level].Put(c)
	return packed
}

func take(level int) *compressor {
	if c, ok := atRest[level].Get().(*compressor); ok {
		c.zip.Reset(&c.out)
		return c
	}
	c := new(compressor)
	var err error
	if c.zip, err = gzip.NewWriterLevel(&c.out, level); err != nil {
		panic(fmt.Sprintf("gzip level %d: %v", level, err))
	}
	return c
}
