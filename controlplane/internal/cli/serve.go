package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spf13/pflag"

	"reverseproxy/controlplane/internal/fleet"
	"reverseproxy/controlplane/internal/serve"
)

var serveCommand = &command{
	name:    "serve",
	args:    "CONFIG",
	summary: "Run: watch CONFIG, validate every change and push it to the data planes",
	more: `
Save CONFIG by writing another file and renaming it over. SIGHUP reads it at
once; the first SIGINT or SIGTERM is a clean stop, the second exits at once.`,
	setUp: setUpServe,
}

func setUpServe(env *Env, flags *pflag.FlagSet) func(context.Context, []string) error {
	var o serve.Options
	flags.StringVar(&o.Listen, "listen", "127.0.0.1:18000", "`address` of gRPC, for data planes and the command line; port 0 is any free one")
	flags.StringVar(&o.Admin, "admin", "127.0.0.1:18080", "`address` of HTTP: a page for people at /, /metrics, /healthz, /readyz, /api/v1/status; port 0 is any free one")
	tlsFlags(flags, &o.TLS, "")
	flags.BoolVar(&o.Insecure, "insecure", false, "serve gRPC without encryption also beyond this machine")
	flags.StringVar(&o.StateDir, "state-dir", "", "`directory` that keeps the revision and the drained backends over restarts (default: they are not kept)")
	flags.DurationVar(&o.ApplyDeadline, "apply-deadline", fleet.DefaultApplyDeadline, "`time` a data plane has to apply a route table before it counts as stale")
	flags.DurationVar(&o.ForgetAfter, "forget-after", fleet.DefaultForgetAfter, "`time` a vanished data plane stays in the status and is waited for")
	format := flags.String("log-format", "text", "`format` of the log on standard error: text or json")
	level := flags.String("log-level", "info", "`level` from which on is logged: debug, info, warn or error")
	return func(ctx context.Context, args []string) error {
		file, err := oneFile(args)
		if err != nil {
			return err
		}
		o.Config, o.Build = file, env.Build
		if o.Log, err = newLogger(env.Stderr, *format, *level); err != nil {
			return err
		}
		for name, d := range map[string]time.Duration{"--apply-deadline": o.ApplyDeadline, "--forget-after": o.ForgetAfter} {
			if d <= 0 {
				return usagef("%s must be more than zero", name)
			}
		}
		if o.ForgetAfter <= o.ApplyDeadline {
			return usagef("--forget-after (%s) must be longer than --apply-deadline (%s): a data plane that vanishes in a roll-out would be forgotten before it is missed",
				o.ForgetAfter, o.ApplyDeadline)
		}
		if err := serve.CheckListen("--listen", o.Listen, o.TLS, o.Insecure); err != nil {
			return usagef("%v", err)
		}
		if err := serve.CheckAddress("--admin", o.Admin); err != nil {
			return usagef("%v", err)
		}
		err = env.Serve(ctx, o)
		var invalid *serve.InvalidConfigError
		if errors.As(err, &invalid) {
			// As from validate: problems are for people, not for a log.
			fmt.Fprintf(env.Stderr, "%v\n", invalid)
			return fmt.Errorf("%s is not valid, and there is no earlier configuration to serve", file)
		}
		return err
	}
}

// newLogger returns the logger that the flags describe.
func newLogger(w io.Writer, format, level string) (*slog.Logger, error) {
	var threshold slog.Level
	if err := threshold.UnmarshalText([]byte(level)); err != nil {
		return nil, usagef("--log-level %q is none of debug, info, warn, error", level)
	}
	options := slog.HandlerOptions{Level: threshold}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, &options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, &options)), nil
	default:
		return nil, usagef("--log-format %q is neither text nor json", format)
	}
}
