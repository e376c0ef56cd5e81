// Package traffic keeps what the data planes report about requests: the totals of each
// data plane, the rates of each endpoint over the fleet, and a sample of the requests
// of the last five minutes. Package fleet gives it each heartbeat; whoever judges a
// change reads from it.
//
// Nothing that a data plane says is believed further than for that data plane: what is
// no number, too long or not printable is left out, and everything is bounded.
//
// # Memory
//
//   - per data plane 600 bytes, so 6 MB for 10,000 of them;
//   - per endpoint that has requests on a data plane 35 to 60 bytes, and at most
//     4,000,000 of these in all: 130 MB for 10,000 data planes with 400 each. Beyond
//     that the rates are too low, and Rates says so;
//   - per endpoint that had requests in the last five minutes 150 bytes, and at most
//     200,000 of these: 30 MB;
//   - at most 9,300 samples of at most 1 KB: usually 2 MB;
//   - 120 points of the 300 busiest endpoints at that time: 1 MB.
package traffic
