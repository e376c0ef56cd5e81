// Package fleet holds the desired route table and what every data plane makes
// of it, and brings the one to the other.
//
// Publish builds everything that is sent once per version (marshalled,
// compressed, cut into chunks), swaps one atomic pointer and closes one channel.
// There is no queue per stream: each stream loads the newest table when it is
// free, so a slow data plane skips versions, delays nobody, and costs no memory
// beyond the shared bytes.
//
// Prepare has all data planes make a table ready first: the Publish that follows sends
// a word in its place.
//
// A data plane that serves a version of which there is an index gets a delta, when that is
// much smaller (delta.go, index.go). It is made once, too, and shared.
//
// The core (Fleet, session, Table) is plain state behind one mutex with an
// injected clock. gRPC appears in three files only: server.go (the stream),
// codec.go (sending shared bytes) and the limits in grpc.go.
package fleet
