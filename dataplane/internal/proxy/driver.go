package proxy

import "time"

// Sizes that bound the memory of a connection; see the package comment.
const (
	// ReadSize is the most bytes a driver may hand to Engine.Data at once. It is more
	// than 64 KiB, so that a body of so much is read and sent with its head, in one go.
	ReadSize = 128 << 10
	// highWater is how much may wait in one output queue before the side that
	// feeds it is paused.
	highWater = 64 << 10
	// gatherSize is from what size on a body is sent from where it lies, and not
	// copied behind its head: two pieces cost more than one until copying does.
	gatherSize = 8 << 10
	// spliceSize is how much of a body must be missing to be moved by the driver:
	// to begin with that costs something.
	spliceSize = 256 << 10
	// MaxQueued bounds an output queue: it is fed once more after it was last
	// seen at or below highWater, by one read and the head in front of it. A
	// head is at most responseHeadBytes or, for a request, the head limit of the
	// route table, plus what this hop adds.
	MaxQueued = highWater + 2*ReadSize + 8<<10
)

// Driver does the I/O of one event loop for one Engine. Its methods, but for Post,
// are called only from inside the Engine's callbacks (and so from one goroutine at a
// time), do not block, and never call the Engine back before they return. A driver
// reports what went wrong with Engine.EOF or Engine.DialFailed, later.
//
// The engine never touches a Conn after it has given it to Close or Abort, so a
// driver may use the memory again as soon as the running callback has returned.
type Driver interface {
	// Send writes p, or queues what cannot be written now. p is valid during the
	// call only. The connection may still be being dialled. A driver that is busy
	// may keep p for a moment, and try to write it before anything else is done to c.
	Send(c *Conn, p []byte)
	// SendBoth is Send of head and then body, which lie apart, in one go.
	SendBoth(c *Conn, head, body []byte)
	// Queued returns the bytes given to Send that the operating system would not
	// take yet. What Send keeps for a moment is not counted.
	Queued(c *Conn) int
	// Flush tries to write what Send has kept, so that Queued is all that is not
	// written.
	Flush(c *Conn)
	// Dial starts to connect to addr (host:port) and returns a zeroed Conn whose
	// Handle is set. Engine.Connected or Engine.DialFailed follows, unless the
	// Conn is closed before. timeout includes resolving the name.
	Dial(addr string, timeout time.Duration) *Conn
	// CloseWrite sends FIN behind everything queued.
	CloseWrite(c *Conn)
	// Close closes the connection now and drops what is queued. There is no
	// callback for c any more.
	Close(c *Conn)
	// Abort is Close with a reset, so that the peer cannot take what it has
	// received for a complete message.
	Abort(c *Conn)
	// Pause stops Engine.Data and a clean Engine.EOF for c until Resume, at
	// once. The bytes stay in the operating system. A client connection that
	// breaks is told of all the same; one to a backend is not, because what it has
	// received before that may be the whole response.
	Pause(c *Conn)
	// Resume is the counterpart of Pause.
	Resume(c *Conn)
	// Splice moves the next n bytes that from receives to to without showing them to
	// Data, and returns true, or returns false and does nothing. Nothing may be
	// queued for to, and from must not be paused. Engine.Spliced tells of the bytes
	// that have been moved until n is reached; from then on Data is called again.
	// Queued(to) counts bytes on their way. An EOF of from comes behind all bytes
	// that were received before it, and ends it, as does closing either.
	Splice(from, to *Conn, n int64) bool
	// After sets the one deadline of c, in the time of Engine.SetNow; 0 is none.
	// Engine.Timeout is called once when it has passed, perhaps a little late.
	After(c *Conn, deadline int64)
	// Go runs work outside the loop and then done as a callback. It may run done
	// without having run work when the driver is closing.
	Go(work, done func())
	// Post runs f as a callback for c, soon, unless c has been closed by then. Its
	// memory may have become another connection's, which f has to find out. What is
	// posted first runs first. Any goroutine may call Post, whatever it holds.
	Post(c *Conn, f func())
}
