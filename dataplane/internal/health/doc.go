// Package health decides which members of pools may be used. It probes backends
// (active checks), ejects those that fail requests (passive checks), and has the
// names of backends resolved. Package table tells which endpoints are in use; the
// outcome goes into each backend.Member, and Pool.Refresh brings it to the request
// path, which never waits for any of this.
//
// One prober serves every endpoint that has the same check for the same address.
// Its state outlives route tables as long as somebody has that check for that
// address, and goes with the last of them.
package health
