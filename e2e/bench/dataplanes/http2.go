//go:build linux

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"

	"golang.org/x/net/http2/hpack"
	"golang.org/x/sys/unix"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

// The parts of RFC 9113 that a client with one stream needs.
const (
	frameHead = 9
	preface   = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

	kindData, kindHeaders, kindReset, kindSettings     = 0, 1, 3, 4
	kindPing, kindGoAway, kindWindow                   = 6, 7, 8
	flagAck, flagEndStream, flagEndHeaders, flagPadded = 1, 1, 4, 8

	streamID = 1
	// window is the one that streams and connections begin with.
	window = 65535
	// messageHead is before each gRPC message: whether it is compressed, its length.
	messageHead = 5
	// maxMessage bounds what a broken server can make this program keep.
	maxMessage = 4 << 20
)

var errEnded = errors.New("the server has ended the stream")

// stream is the client's side of one gRPC stream, alone on its connection.
type stream struct {
	conn net.Conn
	raw  syscall.RawConn
	// message is called for each one that is received; it is valid during the call.
	message func([]byte) error
	counted interface {
		in(n int)
		out(n int)
	}

	writing sync.Mutex

	// What has come of the frame and of the message that are not complete.
	head      [frameHead]byte
	headSize  int
	left      int // bytes of the frame
	control   []byte
	collected *bytes.Buffer
	// consumed is what the server may send again.
	consumed int
}

// opening is what a client sends first.
var opening = func() []byte {
	var fields bytes.Buffer
	e := hpack.NewEncoder(&fields)
	for _, f := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", routetablev1.RouteTableService_Subscribe_FullMethodName},
		{":authority", "localhost"}, {"content-type", "application/grpc"}, {"te", "trailers"},
	} {
		if err := e.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			panic(err)
		}
	}
	b := appendFrame([]byte(preface), kindSettings, 0, 0, nil)
	return appendFrame(b, kindHeaders, flagEndHeaders, streamID, fields.Bytes())
}()

func appendFrame(b []byte, kind, flags byte, stream uint32, payload []byte) []byte {
	b = append(b, byte(len(payload)>>16), byte(len(payload)>>8), byte(len(payload)), kind, flags)
	b = binary.BigEndian.AppendUint32(b, stream)
	return append(b, payload...)
}

// appendMessage appends a gRPC message, which is to be short.
func appendMessage(b, message []byte) []byte {
	payload := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
	return appendFrame(b, kindData, 0, streamID, append(payload, message...))
}

// open connects and sends the first message.
func (s *stream) open(address string, hello []byte) error {
	conn, err := net.DialTimeout("tcp", address, silence)
	if err != nil {
		return err
	}
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	s.conn, s.raw = conn, raw
	return s.write(appendMessage(bytes.Clone(opening), hello))
}

// send sends a message.
func (s *stream) send(message []byte) error { return s.write(appendMessage(nil, message)) }

func (s *stream) write(b []byte) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.counted.out(len(b))
	_, err := s.conn.Write(b)
	return err
}

// Waiting streams hold no buffer: they share a few.
var buffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// collections are buffers for messages that come in several pieces. They are kept for
// ever: thousands are received at the same time, and memory that is taken from the system
// anew for each table costs more than all the rest.
var collections struct {
	sync.Mutex
	free []*bytes.Buffer
}

func newCollection() *bytes.Buffer {
	collections.Lock()
	defer collections.Unlock()
	n := len(collections.free) - 1
	if n < 0 {
		return new(bytes.Buffer)
	}
	b := collections.free[n]
	collections.free = collections.free[:n]
	return b
}

func freeCollection(b *bytes.Buffer) {
	b.Reset()
	collections.Lock()
	defer collections.Unlock()
	collections.free = append(collections.free, b)
}

// receive reads until the stream or the connection ends, and returns why.
func (s *stream) receive() error {
	for {
		if err := s.receiveSome(); err != nil {
			return err
		}
	}
}

func (s *stream) receiveSome() error {
	var buffer *[64 << 10]byte
	var n int
	var failed error
	err := s.raw.Read(func(fd uintptr) bool {
		buffer = buffers.Get().(*[64 << 10]byte)
		n, failed = unix.Read(int(fd), buffer[:])
		if errors.Is(failed, unix.EAGAIN) {
			buffers.Put(buffer)
			return false
		}
		return true
	})
	if err != nil {
		return err
	}
	defer buffers.Put(buffer)
	switch {
	case errors.Is(failed, unix.EINTR):
		return nil
	case failed != nil:
		return failed
	case n <= 0:
		return io.EOF
	}
	s.counted.in(n)
	return s.feed(buffer[:n])
}

// feed takes the next bytes of the connection.
func (s *stream) feed(b []byte) error {
	for len(b) > 0 {
		if s.headSize < frameHead {
			n := copy(s.head[s.headSize:], b)
			s.headSize += n
			b = b[n:]
			if s.headSize < frameHead {
				return nil
			}
			s.left = int(s.head[0])<<16 | int(s.head[1])<<8 | int(s.head[2])
		}
		part := b[:min(len(b), s.left)]
		b = b[len(part):]
		s.left -= len(part)
		if s.kind() == kindData {
			if err := s.data(part); err != nil {
				return err
			}
		} else {
			s.control = append(s.control, part...)
		}
		if s.left == 0 {
			if err := s.frame(); err != nil {
				return err
			}
			s.headSize, s.control = 0, s.control[:0]
		}
	}
	return nil
}

func (s *stream) kind() byte  { return s.head[3] }
func (s *stream) flags() byte { return s.head[4] }

// frame acts on a frame that is complete.
func (s *stream) frame() error {
	switch s.kind() {
	case kindData, kindHeaders:
		if s.flags()&flagEndStream != 0 {
			return errEnded
		}
	case kindReset, kindGoAway:
		return errEnded
	case kindSettings:
		if s.flags()&flagAck == 0 {
			return s.write(appendFrame(nil, kindSettings, flagAck, 0, nil))
		}
	case kindPing:
		if s.flags()&flagAck == 0 {
			return s.write(appendFrame(nil, kindPing, flagAck, 0, s.control))
		}
	}
	return nil
}

// data takes the next bytes of the stream.
func (s *stream) data(p []byte) error {
	if s.flags()&flagPadded != 0 {
		return errors.New("a padded frame, which gRPC does not send")
	}
	s.consumed += len(p)
	if s.consumed >= window/4 {
		update := binary.BigEndian.AppendUint32(nil, uint32(s.consumed))
		s.consumed = 0
		if err := s.write(appendFrame(appendFrame(nil, kindWindow, 0, 0, update), kindWindow, 0, streamID, update)); err != nil {
			return err
		}
	}
	if s.collected == nil {
		rest, err := s.messages(p)
		if err != nil || len(rest) == 0 {
			return err
		}
		s.collected = newCollection()
		if len(rest) >= messageHead {
			s.collected.Grow(messageHead + int(binary.BigEndian.Uint32(rest[1:]))) // at most maxMessage
		}
		p = rest
	}
	s.collected.Write(p)
	rest, err := s.messages(s.collected.Bytes())
	if err == nil && len(rest) == 0 {
		freeCollection(s.collected)
		s.collected = nil
		return nil
	}
	s.collected.Next(s.collected.Len() - len(rest))
	return err
}

// messages hands on those that are complete and returns what follows them.
func (s *stream) messages(p []byte) (rest []byte, err error) {
	for len(p) >= messageHead {
		n := binary.BigEndian.Uint32(p[1:])
		if p[0] != 0 || n > maxMessage {
			return nil, fmt.Errorf("a message with flag %d and %d bytes", p[0], n)
		}
		if uint32(len(p)-messageHead) < n {
			break
		}
		if err := s.message(p[messageHead : messageHead+n]); err != nil {
			return nil, err
		}
		p = p[messageHead+n:]
	}
	return p, nil
}
