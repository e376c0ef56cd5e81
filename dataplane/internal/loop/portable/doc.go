// Package portable is the driver for any Unix, and the plain twin of package
// epoll: one goroutine per connection reads, and calls the session under the mutex
// of the connection's loop. What the session sends is queued and then written by
// the same goroutine, after it has let go of the mutex, so that a request costs no
// goroutine that it would not have had anyway. Writing never blocks it: when the
// operating system takes no more, a goroutine of the connection's own waits for
// that.
//
// A connection at rest holds its goroutine's stack and no buffer: the goroutine
// waits for the socket to be readable and only then takes a read buffer, of
// proxy.ReadSize bytes, from a pool. Output that the peer does not take is bounded
// by proxy.MaxQueued per connection.
package portable
