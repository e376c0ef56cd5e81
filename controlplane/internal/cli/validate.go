package cli

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/pflag"

	"reverseproxy/controlplane/internal/assert"
	"reverseproxy/controlplane/internal/compile"
	"reverseproxy/controlplane/internal/config"
	"reverseproxy/controlplane/internal/source"
	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

var validateCommand = &command{
	name:    "validate",
	args:    "CONFIG...",
	summary: "Check files and print every problem; needs no running control plane",
	more:    `CONFIG may be - for standard input. Problems go to standard error.`,
	setUp: func(env *Env, _ *pflag.FlagSet) func(context.Context, []string) error {
		return func(_ context.Context, args []string) error {
			if len(args) == 0 {
				return usagef("CONFIG is missing: the paths of the YAML files to check")
			}
			return validate(env, args)
		}
	},
}

// validate checks each file and reports on all of them.
func validate(env *Env, files []string) error {
	var failed bool
	for _, file := range files {
		name, data, err := readConfig(env, file)
		var rt *routetablev1.RouteTable
		if err == nil {
			rt, err = checked(name, data)
		}
		if err != nil {
			failed = true
			fmt.Fprintln(env.Stderr, err)
			continue
		}
		fmt.Fprintf(env.Stdout, "%s: ok, %s, version %s\n", name, plural(len(rt.GetEndpoints()), "endpoint"), short(routetable.Version(rt)))
	}
	if failed {
		return errReported
	}
	return nil
}

// checked returns the route table of a configuration text whose tests all hold.
func checked(name string, data []byte) (*routetablev1.RouteTable, error) {
	cfg, err := config.Load(name, data)
	if err != nil {
		return nil, err
	}
	rt, err := compile.Compile(cfg)
	if err != nil {
		return nil, err
	}
	return rt, assert.Check(name, cfg.Tests, rt)
}

// readConfig reads a configuration file, or standard input for "-", and returns
// the name to call it by.
func readConfig(env *Env, file string) (name string, data []byte, err error) {
	if file == "-" {
		data, err = source.ReadAll(env.Stdin, "standard input")
		return "stdin", data, err
	}
	f, err := os.Open(file)
	if err != nil {
		return file, nil, err
	}
	defer f.Close()
	data, err = source.ReadAll(f, file)
	return file, data, err
}
