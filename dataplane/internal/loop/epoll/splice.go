//go:build linux

package epoll

import (
	"syscall"

	"golang.org/x/sys/unix"

	"reverseproxy/dataplane/internal/proxy"
)

const (
	// pipeSize is how much may be in a pipe. As much as the kernel moves at once is
	// what makes it cheap.
	pipeSize = 512 << 10
	// maxPipes is how many empty ones a loop keeps: they count against a limit of
	// the user's.
	maxPipes = 16
)

// pipe is a pipe of the operating system between two connections.
type pipe struct {
	from, to *conn
	left     int64 // still to be taken from from
	held     int   // in the pipe
	failed   syscall.Errno

	r, w int32
	size int
}

// Splice implements proxy.Driver.
func (d *driverOf) Splice(from, to *proxy.Conn, n int64) bool {
	l := d.loop()
	f, t := from.Handle.(*conn), to.Handle.(*conn)
	l.release(t)
	if f.closed || t.closed || f.broken != 0 || t.broken != 0 || f.pipe != nil || t.pipe != nil || t.out != nil || t.shut {
		return false
	}
	p := l.openPipe()
	if p == nil {
		return false
	}
	p.from, p.to, p.left, p.held, p.failed = f, t, n, 0, 0
	f.pipe, t.pipe = p, p
	// What has come since is not told again.
	f.unread = true
	l.look(f)
	return true
}

// openPipe returns an empty pipe, nil when the operating system gives none.
func (l *eventLoop) openPipe() *pipe {
	if n := len(l.pipes); n > 0 {
		p := l.pipes[n-1]
		l.pipes = l.pipes[:n-1]
		return p
	}
	var ends [2]int
	if unix.Pipe2(ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK) != nil {
		return nil
	}
	p := &pipe{r: int32(ends[0]), w: int32(ends[1]), size: 64 << 10}
	if n, err := unix.FcntlInt(uintptr(p.w), unix.F_SETPIPE_SZ, pipeSize); err == nil {
		p.size = n
	}
	return p
}

// endPipe parts a pipe from its connections. One with bytes in it is of no use to
// others.
func (l *eventLoop) endPipe(p *pipe) {
	p.from.pipe, p.to.pipe, p.from, p.to = nil, nil, nil, nil
	if p.held > 0 || len(l.pipes) >= maxPipes {
		p.close()
		return
	}
	l.pipes = append(l.pipes, p)
}

func (p *pipe) close() {
	closeFD(p.r)
	closeFD(p.w)
}

// pump moves what can be moved and tells the engine. It returns whether from may
// be read from again at once.
func (l *eventLoop) pump(p *pipe) bool {
	l.flush() // so much may be moved that it takes long
	moved := int64(0)
	for range rounds {
		progress := false
		if n := min(p.left, int64(p.size-p.held)); n > 0 && p.failed == 0 && p.from.unread {
			n, errno := splice(p.from.fd, p.w, int(n))
			switch {
			case n > 0 && errno == 0:
				p.left -= int64(n)
				p.held += n
				progress = true
			case errno == 0:
				p.failed = ended
			case errno != syscall.EAGAIN:
				p.failed = errno
			case p.held == 0:
				p.from.unread = false // else it may be the pipe that is full
			}
		}
		if p.held > 0 {
			n, errno := splice(p.r, p.to.fd, p.held)
			switch {
			case n > 0 && errno == 0:
				p.held -= n
				moved += int64(n)
				progress = true
			case errno != 0 && errno != syscall.EAGAIN:
				l.broke(p.to, errno)
			}
		}
		if !progress {
			break
		}
	}
	from, failed := p.from, p.failed
	over := p.held == 0 && (p.left == 0 || failed != 0)
	if over {
		l.endPipe(p)
	} else if from.unread && p.held == 0 && failed == 0 {
		l.look(from) // others first
	}
	l.current = from
	if moved > 0 {
		l.engine.Spliced(&from.Conn, moved)
	}
	switch {
	case !over || from.closed:
		return false
	case failed == ended:
		l.end(from, from.broken)
		return false
	case failed != 0:
		l.end(from, failed)
		return false
	}
	return true
}

// ended stands for the end of what from sends, among error numbers.
const ended = syscall.Errno(^uintptr(0))
