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
//     use yet. What is sent goes out at once, unless the loop has much to do:
//     then short pieces are held until there are some, and sent in a row. Else only what
//     the operating system does not take is copied.
//   - What has been begun comes before what has not: events of backends are worked
//     through at once, those of clients a few at a time, and in between the loop looks
//     for more of the former. So a backend connection is free again, and still in the
//     caches, before the next request needs one. Taking everything as it comes, a loop
//     with 1000 busy clients would have half of their requests at the backends,
//     each on a connection that nobody has touched for long.
//   - Nothing re-enters the session. Whatever is found out inside one of its
//     callbacks (a broken connection, one to be read again) is put on a list and
//     looked at afterwards.
//   - Connections that are closed are used again only when the list and the batch
//     that might name them are done with.
//
// # Waiting
//
// The thread is locked and its socket calls are raw: they do not block, so the
// scheduler need not know of them. Only the wait does. A wait that it knows of costs
// more than the thread sees: Go's monitor thread takes the processor away and looks
// again every 20 µs for some time, which at a few thousand requests per second is half as
// much CPU time again, and takes turns with the loop on the same CPU. So the wait is raw
// as well while there is something to do every shortGap, on the average. When there is
// not it is an ordinary system call, which costs nothing until something happens: a raw
// one keeps the monitor awake. Neither has a timeout, for which the kernel would arm a
// timer for each wait: one goroutine keeps the time for all loops, and wakes them when it
// is time for a deadline. Only with so much to do that there is hardly ever a wait it
// has one, of rawWait, and the loop does not get ready to sleep.
//
// A raw wait is interrupted by the signal with which the scheduler stops the
// world, and with which the monitor takes the processor away from who has had it for
// 10 ms. The loop then has to let the scheduler in (runtime.Gosched); going
// straight back to the raw wait would stop the world for ever. Whoever sends the signal
// sends it again until it has been heeded, so one that comes just before the wait is
// not lost. (So GODEBUG=asyncpreemptoff=1, which switches the signals off, is not for
// data planes.)
//
// GOMAXPROCS should be SpareProcessors more than there are loops, so that a
// collection, the control-plane stream and /metrics find a processor while all
// loops have theirs.
//
// # Memory
//
// A connection at rest is its conn and nothing else. Output that the peer does not
// take is bounded by proxy.MaxQueued per connection.
package epoll
