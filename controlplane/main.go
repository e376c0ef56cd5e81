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

// version is set by the linker (make build).
var version string

// build returns what is known about this program's version.
func build() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	version := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && (version == "" || version == "(devel)") {
			version = s.Value[:min(len(s.Value), 12)]
		}
	}
	if version == "" || version == "(devel)" {
		return "development"
	}
	return version
}
