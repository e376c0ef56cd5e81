package accesslog

import (
	"strconv"
	"time"
)

// Format is what a line looks like.
type Format uint8

// The formats.
const (
	// JSON is an object with everything that is known.
	JSON Format = iota
	// Common is the Common Log Format of Apache and nginx.
	Common
	// Combined is Common with Referer and User-Agent.
	Combined
)

// Settings say what is logged, and where to. They are immutable.
type Settings struct {
	// Path of a file, or routetable.Stdout.
	Path   string
	Format Format
	// PerMillion is how many of a million requests are logged.
	PerMillion uint32
}

// Line is what is told about one exchange. What is empty is not known. The bytes
// come from outside, and nothing about them is taken for granted.
type Line struct {
	Time   int64  // when the request's head was complete, in Unix nanoseconds
	Client []byte // address without port

	Method, Host, Target []byte // Target as received; no Method: not a valid request
	Minor                uint8  // the request's version is HTTP/1.Minor
	Referer, UserAgent   []byte
	RequestID            []byte

	Status            int // sent to the client; 499 when it left before there was one
	BytesIn, BytesOut uint64
	BodyOut           uint64        // of BytesOut, without heads
	Duration          time.Duration // until the last byte of the response
	Backend           time.Duration // until the head of the backend's response; negative: there was none

	Endpoint, URL string // URL of the backend
	Attempts      int    // backends that were given the request
	Version       string // of the route table
	ByProxy       bool   // the proxy answered itself
	Error         string // what failed the request, as in dataplane_{backend_errors,client_errors,requests_refused}_total
}

// MaxValue is how many bytes of one value are logged. A longer one is cut, and
// "..." tells so: one client must not be able to fill the log with a few
// requests.
const MaxValue = 8 << 10

// append appends the line with its line feed.
func (l *Line) append(dst []byte, f Format, d *day) []byte {
	if f == JSON {
		return l.json(dst, d)
	}
	return l.clf(dst, f, d)
}

func (l *Line) json(dst []byte, d *day) []byte {
	dst = append(dst, `{"time":"`...)
	dst = d.rfc3339(dst, l.Time)
	dst = append(dst, `","client":"`...)
	dst = appendJSON(dst, l.Client)
	dst = append(dst, `","method":"`...)
	dst = appendJSON(dst, l.Method)
	dst = append(dst, `","host":"`...)
	dst = appendJSON(dst, l.Host)
	dst = append(dst, `","target":"`...)
	dst = appendJSON(dst, l.Target)
	dst = append(dst, `","protocol":"`...)
	dst = append(dst, l.protocol()...)
	dst = append(dst, `","status":`...)
	dst = strconv.AppendInt(dst, int64(l.Status), 10)
	dst = append(dst, `,"bytesIn":`...)
	dst = strconv.AppendUint(dst, l.BytesIn, 10)
	dst = append(dst, `,"bytesOut":`...)
	dst = strconv.AppendUint(dst, l.BytesOut, 10)
	dst = append(dst, `,"durationSeconds":`...)
	dst = appendSeconds(dst, l.Duration)
	dst = append(dst, `,"backendSeconds":`...)
	if l.Backend >= 0 {
		dst = appendSeconds(dst, l.Backend)
	} else {
		dst = append(dst, "null"...)
	}
	dst = append(dst, `,"endpoint":"`...)
	dst = appendJSON(dst, l.Endpoint)
	dst = append(dst, `","backend":"`...)
	dst = appendJSON(dst, l.URL)
	dst = append(dst, `","attempts":`...)
	dst = strconv.AppendInt(dst, int64(l.Attempts), 10)
	dst = append(dst, `,"byProxy":`...)
	dst = strconv.AppendBool(dst, l.ByProxy)
	dst = append(dst, `,"error":"`...)
	dst = appendJSON(dst, l.Error)
	dst = append(dst, `","requestId":"`...)
	dst = appendJSON(dst, l.RequestID)
	dst = append(dst, `","version":"`...)
	dst = appendJSON(dst, l.Version)
	dst = append(dst, `","referer":"`...)
	dst = appendJSON(dst, l.Referer)
	dst = append(dst, `","userAgent":"`...)
	dst = appendJSON(dst, l.UserAgent)
	return append(dst, "\"}\n"...)
}

func (l *Line) clf(dst []byte, f Format, d *day) []byte {
	dst = appendCLF(dst, l.Client)
	dst = append(dst, " - - ["...)
	dst = d.clf(dst, l.Time)
	dst = append(dst, `] "`...)
	if len(l.Method) > 0 {
		dst = appendCLF(dst, l.Method)
		dst = append(dst, ' ')
		dst = appendCLF(dst, l.Target)
		dst = append(dst, ' ')
		dst = append(dst, l.protocol()...)
	} else {
		dst = append(dst, '-')
	}
	dst = append(dst, `" `...)
	dst = strconv.AppendInt(dst, int64(l.Status), 10)
	dst = append(dst, ' ')
	dst = strconv.AppendUint(dst, l.BodyOut, 10)
	if f == Combined {
		dst = append(dst, ` "`...)
		dst = appendCLFOrDash(dst, l.Referer)
		dst = append(dst, `" "`...)
		dst = appendCLFOrDash(dst, l.UserAgent)
		dst = append(dst, '"')
	}
	return append(dst, '\n')
}

func (l *Line) protocol() string {
	switch {
	case len(l.Method) == 0:
		return ""
	case l.Minor == 0:
		return "HTTP/1.0"
	}
	return "HTTP/1.1"
}

// appendSeconds appends a duration in seconds, to the microsecond.
func appendSeconds(dst []byte, d time.Duration) []byte {
	us := uint64(max(d, 0) / time.Microsecond)
	dst = strconv.AppendUint(dst, us/1e6, 10)
	rest := uint32(us % 1e6)
	dst = append(dst, '.')
	dst = appendTwo(dst, rest/10_000)
	dst = appendTwo(dst, rest/100%100)
	return appendTwo(dst, rest%100)
}

// appendTwo appends a number below 100 in two digits.
func appendTwo(dst []byte, n uint32) []byte {
	return append(dst, byte('0'+n/10), byte('0'+n%10))
}

// day knows the date of the moment it was last asked about: almost always that
// of the next one. All times are in UTC.
type day struct {
	number  int64 // since 1970, plus 1; 0: none
	iso     [len("2006-01-02")]byte
	english [len("02/Jan/2006")]byte
}

const nanosPerDay = int64(24 * time.Hour)

// split returns the nanoseconds since midnight and sets the date.
func (d *day) split(unix int64) uint64 {
	unix = max(unix, 0) // a clock that was never set
	if n := unix/nanosPerDay + 1; n != d.number {
		d.number = n
		t := time.Unix(0, unix).UTC()
		t.AppendFormat(d.iso[:0], "2006-01-02")
		t.AppendFormat(d.english[:0], "02/Jan/2006")
	}
	return uint64(unix % nanosPerDay)
}

// rfc3339 appends a time such as 2006-01-02T15:04:05.000Z (RFC 3339).
func (d *day) rfc3339(dst []byte, unix int64) []byte {
	ns := d.split(unix)
	dst = append(dst, d.iso[:]...)
	dst = append(dst, 'T')
	dst = appendClock(dst, ns)
	ms := uint32(ns / 1e6 % 1000)
	dst = append(dst, '.', byte('0'+ms/100))
	dst = appendTwo(dst, ms%100)
	return append(dst, 'Z')
}

// clf appends a time such as 02/Jan/2006:15:04:05 +0000.
func (d *day) clf(dst []byte, unix int64) []byte {
	ns := d.split(unix)
	dst = append(dst, d.english[:]...)
	dst = append(dst, ':')
	dst = appendClock(dst, ns)
	return append(dst, " +0000"...)
}

// appendClock appends hh:mm:ss.
func appendClock(dst []byte, ns uint64) []byte {
	s := uint32(ns / 1e9)
	dst = append(appendTwo(dst, s/3600), ':')
	dst = append(appendTwo(dst, s/60%60), ':')
	return appendTwo(dst, s%60)
}
