package logfile

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"reverseproxy/proto/routetable"
)

// open opens a file to append to. Neither that nor, where the system allows it,
// writing waits for the reader of a pipe.
func open(path string) (*os.File, error) {
	if path == routetable.Stdout {
		return openStdout()
	}
	// Readable for the owner and the group: the lines tell about people.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NONBLOCK|unix.O_NOCTTY, 0o640)
	if err != nil {
		return nil, fmt.Errorf("open access log: %w", err)
	}
	return f, nil
}

// openStdout opens standard output under another number: the runtime ends the
// process when a pipe on number 1 has lost its reader.
func openStdout() (*os.File, error) {
	var s unix.Stat_t
	if err := unix.Fstat(unix.Stdout, &s); err == nil && s.Mode&unix.S_IFMT == unix.S_IFIFO {
		// As an open file of its own, which may be non-blocking: the one there is
		// belongs to other processes, too. Not everybody may (and only Linux can).
		if f, err := os.OpenFile("/proc/self/fd/1", os.O_WRONLY|unix.O_NONBLOCK, 0); err == nil {
			return f, nil
		}
	}
	fd, err := unix.FcntlInt(uintptr(unix.Stdout), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("open standard output: %w", err)
	}
	return os.NewFile(uintptr(fd), routetable.Stdout), nil
}

// moved reports whether another file than f, or none, has the name now.
func moved(path string, f *os.File) bool {
	if path == routetable.Stdout {
		return false
	}
	there, err := os.Stat(path)
	if err != nil {
		return os.IsNotExist(err)
	}
	mine, err := f.Stat()
	return err == nil && !os.SameFile(there, mine)
}
