// Package limit bounds what the requests of one endpoint take: Gate how many are
// in flight, with a line for those that have to wait, and Rate how many come in a
// time. Both outlive route tables; package table finds them by the endpoint's name,
// the request path asks them.
//
// It knows no requests, no clock and no event loops: a request that waits is a
// Waiter, whose owner is told when it is let in.
package limit
