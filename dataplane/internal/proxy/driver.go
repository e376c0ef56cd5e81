package proxy

import "time"

// Sizes that bound the memory of a connection; see the package comment.
const (
	// ReadSize is the most bytes a driver may hand to Engine.Data at once.
	ReadSize = 64 << 10
	// highWater is how much may wait in one output queue before the side that
	// feeds it is paused.
	highWater = 64 << 10
	// MaxQueued bounds an output queue: it is fed once more after it was last
	// seen at or below highWater, by one read and the head in front of it. A
	// head is at most responseHeadBytes or, for a request, the head limit of the
	// route table, plus what this hop adds.
	MaxQueued = highWater + 2*ReadSize + 8<<10
)

// Driver does the I/O of one event loop for one Engine. Its methods are called
// only from inside the Engine's callbacks (and so from one goroutine at a time),
// do not block, and never call the Engine back before they return. A driver
// reports what went wrong with Engine.EOF or Engine.DialFailed, later.
//
// The engine never touches a Conn after it has given it to Close or Abort, so a
// driver may use the memory again as soon as the running callback has returned.
type Driver interface {
	// Send writes p, or queues what cannot be written now. p is valid during the
	// call only. The connection may still be being dialled.
	Send(c *Conn, p []byte)
	// Queued returns the bytes given to Send that the operating system has not
	// taken yet.
	Queued(c *Conn) int
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
	// once. The bytes stay in the operating system.
	Pause(c *Conn)
	// Resume is the counterpart of Pause.
	Resume(c *Conn)
	// After sets the one deadline of c, in the time of Engine.SetNow; 0 is none.
	// Engine.Timeout is called once when it has passed, perhaps a little late.
	After(c *Conn, deadline int64)
	// Go runs work outside the loop and then done as a callback. It may run done
	// without having run work when the driver is closing.
	Go(work, done func())
}
