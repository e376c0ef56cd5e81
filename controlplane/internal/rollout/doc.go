// Package rollout decides how a change goes through the fleet in steps: which data
// planes have it, when the next ones get it, and when it is taken back.
//
// It is a pure state machine. What goes in are moments, the data planes as they are
// known at that moment, with their counters, and what people ask for; what comes out
// are the ids of those that are to run the change, and the phase. Package reconcile
// lets the time pass, keeps the state over restarts and does what is decided.
//
//	           next step
//	    ┌──────────────────────┐
//	    ▼                      │
//	Applying ── all have ──> Baking ── the last step has passed ──> Done
//	  │   ▲                 │   │
//	  │   └──── resume ──── Paused (by people, or for want of requests)
//	  └──────────┬──────────────┘
//	             └── rejected, gone, errors, slow, or asked ──> Aborted
//
// Another change makes it Superseded from everywhere. Steps only go forward; who has
// been given the change keeps it until the end, unless it leaves the fleet.
package rollout
