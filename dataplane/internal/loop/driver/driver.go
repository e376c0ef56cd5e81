// Package driver says what the two drivers of package loop have in common: what
// they are given and what they give. A driver runs event loops, each with one
// proxy.Engine, and brings it the connections that it accepts and dials.
package driver

import (
	"context"
	"log/slog"
	"net"
	"time"

	"reverseproxy/dataplane/internal/proxy"
)

// Config is what a driver needs.
type Config struct {
	// Threads is the number of event loops, at least 1.
	Threads int
	// NewEngine makes the engine of a loop; called once for each.
	NewEngine func(loop int, d proxy.Driver) *proxy.Engine
	// Admit is asked about each connection that has been accepted. Gone is told
	// when one that was not dropped is closed. Both are called from any goroutine
	// and do not block.
	Admit func(*proxy.Origin) Verdict
	Gone  func(*proxy.Origin)
	// Resolver finds addresses for names that are dialled; nil: the system's.
	Resolver *net.Resolver
	Log      *slog.Logger
}

// Verdict says what is done with a new connection.
type Verdict uint8

// The verdicts.
const (
	Accept Verdict = iota // Engine.Accept
	Refuse                // Engine.Refuse
	Drop                  // close it
)

// Loops are the event loops of a driver. All methods may be called from several
// goroutines.
type Loops interface {
	// Open binds a socket that listens at address (empty: all) and port (0: any
	// free one), beside any others on the port. Connections come from o.
	Open(ctx context.Context, address string, port uint16, o *proxy.Origin) (Socket, error)
	// CloseIdle closes up to n connections from o (nil: from anywhere) that have
	// been between two requests since a moment, and returns how many.
	CloseIdle(o *proxy.Origin, n int, since time.Time) int
	// Close closes every connection at once and returns when all has ended. The
	// sockets must be closed.
	Close()
	// Panics returns how many connections were closed because of a panic.
	Panics() uint64
}

// Socket is a listening socket. Its methods are called one at a time.
type Socket interface {
	Addr() net.Addr
	// Serve accepts connections in the background.
	Serve()
	// Leave makes the socket ignore clients that begin to connect, as far as the
	// operating system knows how to, and returns when those that had begun before
	// are connected and in the queue, or when ctx ends. Accepting goes on.
	Leave(ctx context.Context)
	// Stop accepts what is in the queue of the operating system and returns when
	// nothing is accepted any more.
	Stop()
	// Close closes the socket. What is in its queue is reset.
	Close()
}
