//go:build linux

package epoll

import (
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// inbox is how other goroutines get a loop to do something.
type inbox struct {
	wakefd int // an eventfd
	// asleep: the loop waits, or is about to, and must be woken.
	asleep atomic.Bool
	// full: there are calls.
	full atomic.Bool

	mu    sync.Mutex
	calls []func()
	shut  bool // nothing is taken any more
}

// post has the loop call f soon. It returns false, and f is not called, when the
// loop has ended.
func (b *inbox) post(f func()) bool {
	b.mu.Lock()
	if b.shut {
		b.mu.Unlock()
		return false
	}
	b.calls = append(b.calls, f)
	b.full.Store(true)
	b.mu.Unlock()
	b.wake()
	return true
}

// do is post, and waits until f has returned. Not from inside the loop.
func (b *inbox) do(f func()) bool {
	done := make(chan struct{})
	if !b.post(func() { defer close(done); f() }) {
		return false
	}
	<-done
	return true
}

// wake ends a wait.
func (b *inbox) wake() {
	if b.asleep.Load() && b.asleep.CompareAndSwap(true, false) {
		// Registered edge-triggered: each write is an event, and nobody need read
		// what adds up.
		one := uint64(1)
		_, _, _ = syscall.RawSyscall(unix.SYS_WRITE, uintptr(b.wakefd), uintptr(unsafe.Pointer(&one)), 8)
	}
}

// take returns the calls that have come.
func (b *inbox) take() []func() {
	b.mu.Lock()
	defer b.mu.Unlock()
	calls := b.calls
	b.calls = nil
	b.full.Store(false)
	return calls
}

// close takes the last calls; no others come.
func (b *inbox) close() []func() {
	b.mu.Lock()
	b.shut = true
	b.mu.Unlock()
	return b.take()
}
