// Command controlplane keeps a fleet of data planes on the route table that one
// YAML file describes, and is the command line to ask and change it.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"reverseproxy/controlplane/internal/cli"
	"reverseproxy/controlplane/internal/serve"
)

func main() {
	ctx, release := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	// With the signals released, a second one ends the process at once.
	context.AfterFunc(ctx, release)
	code := cli.Run(ctx, cli.Env{
		Stdin:   os.Stdin,
		Stdout:  os.Stdout,
		Stderr:  os.Stderr,
		NoColor: os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb",
		Getenv:  os.Getenv,
		Author:  cli.Author(),
		Build:   build(),
		Serve:   serveUntilSignal,
	}, os.Args[1:])
	release()
	os.Exit(code)
}

// serveUntilSignal runs a control plane that reads its file again on SIGHUP.
func serveUntilSignal(ctx context.Context, o serve.Options) error {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	reload := make(chan struct{}, 1)
	go func() {
		for {
			select {
			case <-hangups:
				select {
				case reload <- struct{}{}:
				default: // one that waits is enough
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	o.Reload = reload
	return serve.Run(ctx, o)
}

// version is set by the linker for a release.
var version string

// build returns what is known about this program's version, in the words of the
// data plane: one release has one version.
func build() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	b := info.Main.Version
	if b == "" || b == "(devel)" {
		b = "devel"
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				b += "-" + s.Value[:min(12, len(s.Value))]
			}
		}
	}
	return b
}
