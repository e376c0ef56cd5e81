//go:build linux

// Command dataplanes plays many data planes: each has its own TCP connection, its own
// stream and its own state, and keeps the protocol of routetable.proto with hello,
// heartbeats, chunks, deltas and reconnects as the real one does. It forwards nothing.
//
// On two processors ten thousand real clients would take most of the time that is to be
// measured of the control plane. So HTTP/2 is spoken with what the protocol needs and no
// more (http2.go), and every byte is compared with what the first data plane got, which
// alone is unpacked and verified (received.go). Flow control is that of a stream that has
// just begun, without the larger windows that a library grants later: it does not make
// the sender's work lighter.
//
// Whenever all data planes run the same version, each confirmed on the stream that it
// has, a JSON object is printed, see event. Standard input ends the program when it is closed.
package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/pflag"
)

func main() {
	controlPlane := pflag.String("controlplane", "", "`address:port` of the control plane")
	count := pflag.Int("count", 1000, "number of data planes")
	prefix := pflag.String("prefix", "sim", "what their ids begin with")
	deltas := pflag.Bool("deltas", true, "say that deltas are understood")
	heartbeat := pflag.Duration("heartbeat", 5*time.Second, "time between two heartbeats of a data plane")
	pflag.Usage = func() {
		fmt.Fprintf(os.Stderr, "Usage: dataplanes [flags]\n\nFlags:\n%s", pflag.CommandLine.FlagUsages())
	}
	pflag.Parse()
	if pflag.NArg() != 0 || *controlPlane == "" || *count <= 0 || *heartbeat <= 0 {
		pflag.Usage()
		os.Exit(2)
	}
	f := newFleet(*controlPlane, *count, *prefix, *deltas)
	for _, p := range f.planes {
		go p.follow()
	}
	go f.beat(*heartbeat)
	_, _ = io.Copy(io.Discard, os.Stdin) // however it ends, this program does
}
