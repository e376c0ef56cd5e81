// Command dataplane forwards HTTP by the route table that a control plane sends
// it, and serves its own metrics, health and configuration on an admin port.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run is the program; it returns the exit status: 0 after a clean stop, 1 after a
// failure, 2 for wrong usage.
func run(args []string, stdout, stderr io.Writer) int {
	s, err := parse(args, stdout)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "dataplane: %v\nTry dataplane --help.\n", err)
		return 2
	case s.version:
		fmt.Fprintln(stdout, "dataplane", build())
		return 0
	}
	log := s.logger(stderr)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	// With the signals released, a second one ends the process at once.
	context.AfterFunc(ctx, stop)
	if err := serve(ctx, s, log); err != nil {
		log.Error("failed", "error", err)
		return 1
	}
	return 0
}
