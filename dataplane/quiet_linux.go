package main

import "golang.org/x/sys/unix"

// behindNice is how much nicer than the others work behind them is. With the most, 19, a busy
// machine might not let the thread run for a fifth of a second, and the collector
// waits for it when it stops the world; with 10 it has a tenth of a processor.
const behindNice = 10

// yieldToOthers makes the calling thread come behind others that want to run.
func yieldToOthers() {
	thread := unix.Gettid()
	priority, err := unix.Getpriority(unix.PRIO_PROCESS, thread) // 20 less its niceness
	if err == nil {
		// A system that does not allow it is served all the same.
		_ = unix.Setpriority(unix.PRIO_PROCESS, thread, 20-priority+behindNice)
	}
}
