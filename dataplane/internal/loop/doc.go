// Package loop brings the I/O under the HTTP sessions of package proxy: it
// accepts connections, deals them over event loops and moves bytes. The data
// plane opens its listeners here and drains them.
//
// What is the same whatever moves the bytes is here: which connections are
// admitted, how a listener leaves, how a server drains. The bytes are moved by one
// of two drivers, which run the same sessions and the same tests: package epoll,
// the default on Linux, with a thread per event loop and no goroutine per
// connection, and package portable, which works on any Unix and is the plain twin
// against which the other is compared. Packages socket and wheel are what both are
// made of; package driver is what is asked of them.
package loop
