//go:build linux

// Package epoll is the driver for Linux: each event loop is one thread that waits
// in epoll_wait, reads, calls the session and writes, and never blocks anywhere
// else. A request that finds its connections open costs two receives, two sends
// and a share of a wait.
//
// # Rules
//
//   - Sockets are registered once, edge-triggered, for everything. What epoll
//     gives back is a file descriptor and a generation, so that an event for a
//     connection that has been closed in the same batch meets nobody.
//   - There is one receive per readiness. Only a full buffer, or a peer that has
//     announced its end, is worth another.
//   - What is received lies in one buffer per loop; sessions keep what they cannot
//     use yet. What is sent goes out at once; only what the operating system does
//     not take is copied.
//   - Nothing re-enters the session. Whatever is found out inside one of its
//     callbacks (a broken connection, one to be read again) is put on a list and
//     looked at afterwards.
//   - Connections that are closed are used again only when the list and the batch
//     that might name them are done with.
//
// # Waiting
//
// The thread is locked and its socket calls are raw: they do not block, so the
// scheduler need not know of them. Only the wait does. While there is much to do
// it is raw as well, for at most rawWait, since Go's scheduler takes the processor
// away from a thread that is in a system call and gives it back after; with little
// to do the loop waits in an ordinary system call, without a timeout, and costs
// nothing. A timeout would make the kernel arm a timer for each wait: deadlines are
// kept by one goroutine for all loops, which wakes those that have any.
//
// A raw wait is interrupted by the signal with which the scheduler stops the
// world. The loop then has to let the scheduler in (runtime.Gosched); going
// straight back to the raw wait would stop the world for ever.
//
// GOMAXPROCS should be SpareProcessors more than there are loops, so that a
// collection, the control-plane stream and /metrics find a processor while all
// loops are busy.
//
// # Memory
//
// A connection at rest is its conn and nothing else. Output that the peer does not
// take is bounded by proxy.MaxQueued per connection.
package epoll
