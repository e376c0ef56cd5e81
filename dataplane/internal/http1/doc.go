// Package http1 parses HTTP/1.x messages as an intermediary must (RFC 9110, RFC
// 9112): strictly, in place, without allocating. Bytes in, spans and body
// progress out; it does no I/O. The request path (package proxy) calls it.
//
// # Heads
//
// Request.Parse and Response.Parse take the bytes of a connection from the start
// of a head. While the head is incomplete they return 0 and are called again with
// more bytes; a Scan remembers where they were, so the total cost is linear. A
// message that is refused is refused at the first byte that makes it invalid, and
// with the same Error however the bytes were split over reads.
//
// Nothing ambiguous is accepted. Where the RFCs let a recipient choose between
// repairing and refusing, this package refuses:
//
//   - line ends other than CRLF, obs-fold, white space around field names, and
//     control bytes anywhere (RFC 9112 sections 2.2, 5.1, 5.2);
//   - more than one Content-Length, also "5, 5" and also when they agree, and
//     Content-Length beside Transfer-Encoding (RFC 9112 section 6.3);
//   - any Transfer-Encoding but a single "chunked", and any at all in HTTP/1.0
//     (RFC 9112 section 6.1);
//   - a Host that is missing, repeated, empty, or not host[:port]; also one with a
//     comma or a percent-encoded byte, which name no host that exists but that
//     peers read differently (RFC 9112 section 3.2, RFC 9110 section 7.2);
//   - absolute-form with a scheme other than http, or with userinfo (RFC 9110
//     section 4.2.4);
//   - white space and unknown grammar in chunk lines (RFC 9112 section 7.1), and
//     trailer fields that frame, route or authenticate (RFC 9110 section 6.5.1).
//
// Three things are tolerated because they are frequent and can be read one way
// only: an absent space after the status code of a response, Content-Length: 0 in
// a 1xx or 204 response (its field is marked Hop, so that it is not forwarded),
// and list elements of Connection that are not tokens, which name no field.
//
// # Hop-by-hop fields
//
// Field.Hop is set for Connection, Keep-Alive, Proxy-Connection, TE and Upgrade
// (RFC 9110 section 7.6.1), for Proxy-Authenticate and Proxy-Authorization, which
// concern a proxy that the client chose and not the backend of a reverse proxy
// (section 11.7), and for fields named by Connection. Transfer-Encoding is not:
// it says how the body is framed, and whoever forwards the body either keeps both
// or replaces both. Trailer is not either: RFC 9110 has it describe the message
// (section 6.6.2); drop it where the trailers are dropped. Connection cannot
// strip Host, Content-Length, Transfer-Encoding or Expect.
//
// It is also set for a request's fields whose name is that of a known one, other
// than User-Agent, but for
// "_" in the place of "-", such as X_Forwarded_For: to a backend that turns names
// into CGI variables both are one, and the client's would stand for, or beside,
// what this hop says.
//
// # Bodies
//
// Body follows a message body through the stream. A chunked body is verified as
// it passes and can be forwarded byte for byte, or decoded. Per body, chunk
// extensions may take 16 KiB in all and the trailer section 8 KiB.
//
// A value is used by one goroutine at a time.
package http1
