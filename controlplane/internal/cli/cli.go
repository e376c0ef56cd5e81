// Package cli is the command line of the control plane: its sub-commands, their
// flags, their output for people and for scripts, and their exit statuses.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"reverseproxy/controlplane/internal/serve"
)

// Exit statuses.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
	exitLoss    = 3
)

// Env is what a command works with besides its arguments.
type Env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// NoColor switches colour off also on a terminal.
	NoColor bool
	// Getenv returns environment variables; nil: there are none.
	Getenv func(string) string
	// Author is who gives the command, for the history.
	Author string
	// Build is the program's version.
	Build string
	// Serve runs a control plane until the context ends.
	Serve func(context.Context, serve.Options) error
}

// getenv returns an environment variable, empty when it is not set.
func (e *Env) getenv(name string) string {
	if e.Getenv == nil {
		return ""
	}
	return e.Getenv(name)
}

// helpWidth is the length of the help's lines, in characters.
const helpWidth = 100

// usageError is wrong usage: exit status 2.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// errReported is a failure about which everything has been printed.
var errReported = errors.New("reported")

// errLoss is a plan by which live traffic would be lost; it has been printed.
var errLoss = errors.New("live traffic would be lost")

// command is one sub-command.
type command struct {
	name string
	// args and summary are shown in the help.
	args, summary string
	// more is the rest of the help, after the flags.
	more string
	// exit is an exit status beyond those of all commands, for the help.
	exit string
	// sub are the commands below this one, which is none itself and has no setUp.
	sub []*command
	// setUp defines the flags and returns what to do with the arguments.
	setUp func(env *Env, flags *pflag.FlagSet) func(ctx context.Context, args []string) error
}

// commands in the order of the help. The first is the default.
var commands = []*command{serveCommand, validateCommand, explainCommand, statusCommand, topCommand, planCommand, applyCommand,
	rolloutCommand, historyCommand, showCommand, diffCommand, rollbackCommand, drainCommand, undrainCommand, certsCommand}

// Run executes a command line and returns the exit status: 0 for success or a
// clean stop, 1 for a failure, 2 for wrong usage, 3 for a plan that loses traffic.
func Run(ctx context.Context, env Env, args []string) int {
	out := &checkedWriter{w: env.Stdout}
	if _, terminal := terminalWidth(env.Stdout); !terminal {
		env.Stdout = out // a terminal is asked for its width, and is never full
	}
	cmd, args, explicit, err := find(args)
	if err == nil {
		err = cmd.run(ctx, &env, args, explicit)
	}
	if err == nil && out.err != nil {
		err = fmt.Errorf("the output is not complete: %w", out.err)
	}
	var usage *usageError
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errLoss):
		return exitLoss
	case errors.As(err, &usage):
		fmt.Fprintf(env.Stderr, "controlplane: %s\nTry controlplane %s--help.\n", usage.text, prefixOf(cmd, explicit))
		return exitUsage
	case !errors.Is(err, errReported):
		fmt.Fprintf(env.Stderr, "controlplane: %v\n", err)
	}
	return exitFailure
}

// find returns the command that the arguments name, and its own arguments.
func find(args []string) (cmd *command, rest []string, explicit bool, err error) {
	if len(args) == 0 {
		return commands[0], args, false, nil
	}
	asked := args[0] == "help"
	if asked {
		args = append(args[1:len(args):len(args)], "--help")
	}
	i := slices.IndexFunc(commands, func(c *command) bool { return c.name == args[0] })
	switch {
	case i >= 0 && commands[i].sub != nil:
		cmd, rest := commands[i].below(args[1:])
		return cmd, rest, true, nil
	case i >= 0:
		return commands[i], args[1:], true, nil
	case asked && len(args) > 1:
		return commands[0], nil, false, usagef("%q is no command; there are %s", args[0], names())
	}
	return commands[0], args, false, nil
}

// below returns the command below this one that the arguments name, and its own
// arguments.
func (c *command) below(args []string) (*command, []string) {
	for _, sub := range c.sub {
		if len(args) > 0 && sub.name == c.name+" "+args[0] {
			return sub, args[1:]
		}
	}
	return c, args
}

// names lists the commands.
func names() string {
	var list []string
	for _, c := range commands {
		list = append(list, c.name)
	}
	return strings.Join(list, ", ")
}

// checkedWriter remembers the first error: half an output must not look like all
// of it to a script.
type checkedWriter struct {
	w   io.Writer
	err error
}

// Write implements io.Writer.
func (c *checkedWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	if c.err == nil {
		c.err = err
	}
	return n, err
}

// prefixOf is how a command is written before its flags.
func prefixOf(cmd *command, explicit bool) string {
	if !explicit {
		return ""
	}
	return cmd.name + " "
}

// run parses the command's arguments and executes it.
func (c *command) run(ctx context.Context, env *Env, args []string, explicit bool) error {
	flags := pflag.NewFlagSet(c.name, pflag.ContinueOnError)
	flags.SortFlags = false
	flags.SetOutput(io.Discard) // errors are ours to print
	do := c.ask
	if c.sub == nil {
		do = c.setUp(env, flags)
	}
	help := flags.BoolP("help", "h", false, "print this help")
	version := flags.Bool("version", false, "print the program's version")
	if err := flags.Parse(args); err != nil {
		return usagef("%v", err)
	}
	switch {
	case *help:
		c.help(env.Stdout, flags, explicit)
		return nil
	case *version:
		fmt.Fprintln(env.Stdout, "controlplane", env.Build)
		return nil
	}
	args, err := c.arguments(flags.Args(), explicit)
	if err != nil {
		return err
	}
	return do(ctx, args)
}

// ask says which commands there are below this one.
func (c *command) ask(context.Context, []string) error {
	var list []string
	for _, sub := range c.sub {
		list = append(list, sub.name)
	}
	return usagef("the commands are %s", strings.Join(list, ", "))
}

// arguments returns what follows the command. Flags before the word serve are
// understood; before another command they would be those of serve.
func (c *command) arguments(args []string, explicit bool) ([]string, error) {
	if explicit || len(args) < 2 {
		return args, nil
	}
	i := slices.IndexFunc(commands, func(c *command) bool { return c.name == args[0] })
	switch {
	case i < 0:
		return nil, usagef("one CONFIG is expected, but there are %d arguments: %s; the commands are %s", len(args), strings.Join(args, " "), names())
	case commands[i] == c:
		return args[1:], nil
	}
	return nil, usagef("the command %s must come first, before its flags", args[0])
}

// help prints the command's usage, and the program's when no command was named.
func (c *command) help(w io.Writer, flags *pflag.FlagSet, explicit bool) {
	switch {
	case explicit && c.sub != nil:
		fmt.Fprintf(w, "%s.\n\nUsage:\n", c.summary)
		usages(w, c.sub)
	case explicit:
		fmt.Fprintf(w, "%s.\n\nUsage: controlplane %s\n", c.summary, strings.TrimSpace(c.name+" [flags] "+c.args))
	default:
		fmt.Fprint(w, "The control plane keeps a fleet of data planes on what one YAML file says.\n\nUsage:\n")
		usages(w, commands)
		fmt.Fprint(w, "\n'controlplane COMMAND --help' says more about one of them.\n")
	}
	title := "Flags"
	if !explicit {
		title = "Flags of " + c.name
	}
	fmt.Fprintf(w, "\n%s:\n%s", title, flags.FlagUsagesWrapped(helpWidth))
	if c.more != "" {
		fmt.Fprintf(w, "\n%s\n", strings.TrimSpace(c.more))
	}
	fmt.Fprintf(w, "\nExit status: 0 success or clean stop, 1 failure, 2 wrong usage%s.\n", c.exit)
}

// usages prints how commands are used.
func usages(w io.Writer, list []*command) {
	for _, c := range list {
		name := c.name
		if name == commands[0].name {
			name = "[" + name + "]"
		}
		fmt.Fprintf(w, "  controlplane %s\n        %s\n", strings.TrimSpace(name+" [flags] "+c.args), c.summary)
	}
}

// oneFile returns the only argument of a command that takes CONFIG.
func oneFile(args []string) (string, error) {
	switch {
	case len(args) == 0:
		return "", usagef("CONFIG is missing: the path of the YAML file")
	case len(args) > 1:
		return "", usagef("one CONFIG is expected, but there are %d arguments: %s", len(args), strings.Join(args, " "))
	}
	return args[0], nil
}
