package main

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

func TestQuietlyIsBehindWhatServes(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	nice := func() int {
		n, err := unix.Getpriority(unix.PRIO_PROCESS, unix.Gettid())
		if err != nil {
			t.Fatal(err)
		}
		return 20 - n // as the kernel returns it
	}
	usual := nice()
	var during int
	note := func() { during = nice() }
	quietly(largeTable, false, note)
	if during != usual {
		t.Errorf("nothing is served: nice %d, want %d", during, usual)
	}
	quietly(largeTable, true, note)
	if want := min(usual+behindNice, 19); during != want {
		t.Errorf("nice %d, want %d", during, want)
	}
	if after := nice(); after != usual {
		t.Errorf("nice %d afterwards, want %d", after, usual)
	}
}
