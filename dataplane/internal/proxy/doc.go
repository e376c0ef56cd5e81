// Package proxy is the request path: the HTTP/1.x session between a client and a
// backend, written once and without I/O. What it learns comes in through the
// callbacks of Engine (bytes arrived, a queue ran empty, a deadline passed), what
// it wants goes out through Driver. It knows no sockets, no goroutines and no
// file descriptors, and starts nothing itself; package loop brings the drivers.
//
// One Engine belongs to one event loop and is never called from two goroutines
// at once. A request that finds its connections open allocates nothing.
//
// LIFECYCLE.md walks through a request. What is done to header fields, and why,
// is in headers.go and nowhere else.
//
// # Memory
//
// No body is ever held whole, but that of a short request that may have to be sent
// again. A client connection and its backend connection
// together hold at most, all of it empty while nothing is stuck:
//
//   - per direction one output queue in the driver of at most MaxQueued bytes:
//     the other side is not read again before it has run empty;
//   - per client connection at most the head limit of the route table plus
//     ReadSize bytes of input that cannot be used yet (an incomplete head, or
//     pipelined requests behind the one in progress);
//   - per backend connection at most responseHeadBytes + ReadSize bytes of an
//     incomplete response head;
//   - maxHeld bytes of a request that may have to be sent again;
//   - of a request that waits in line the head, and maxHeld plus ReadSize bytes of
//     its body;
//   - the field lines that the endpoint adds to a response;
//   - a note of about 1 KiB, at most 40 KiB, when the request is logged.
//
// A connection between two requests holds nothing but its Conn.
package proxy
