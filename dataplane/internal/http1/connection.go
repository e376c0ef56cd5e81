package http1

import "bytes"

// maxConnectionOptions bounds the work for Connection: each option that is not
// well known is compared with every field.
const maxConnectionOptions = 32

// connection applies the options of the Connection fields (RFC 9110 section
// 7.6.1): whether the connection persists (RFC 9112 section 9.3), upgrade, and
// the fields that they name. Elements that are not tokens name no field.
//
// An HTTP/1.0 client that asks for keep-alive gets it: towards the client a
// reverse proxy is a server, not a proxy (RFC 9112 section 9.3 and C.2.2).
func (h *Head) connection() *Error {
	h.Close = h.Minor == 0
	if !h.seen.has(Connection) {
		return nil
	}
	var hasClose, keepAlive, upgrade bool
	options := 0
	for i := range h.Fields {
		if h.Fields[i].ID != Connection {
			continue
		}
		option, rest, more := cutComma(h.Fields[i].Value.Of(h.Raw))
		for {
			switch id := lookupName(option); {
			case len(option) == 0:
			case id == KeepAlive:
				keepAlive = true
			case id == Upgrade:
				upgrade = true
			case hopNames.has(id), lastingNames.has(id):
			case foldEqual(option, "close"):
				hasClose = true
			default:
				if options++; options > maxConnectionOptions {
					return errTooManyConnectionOp
				}
				h.markHop(option)
			}
			if !more {
				break
			}
			option, rest, more = cutComma(rest)
		}
	}
	h.Close = hasClose || h.Minor == 0 && !keepAlive
	h.Upgrade = upgrade && h.Minor > 0 && h.seen.has(Upgrade)
	return nil
}

// markHop marks the fields with this name.
func (h *Head) markHop(name []byte) {
	for i := range h.Fields {
		f := &h.Fields[i]
		if foldEqualBytes(f.Name.Of(h.Raw), name) {
			f.Hop = true
		}
	}
}

// cutComma returns the first element of a list without the white space around it,
// and what follows its comma.
func cutComma(list []byte) (element, rest []byte, more bool) {
	end := bytes.IndexByte(list, ',')
	if more = end >= 0; more {
		rest = list[end+1:]
	} else {
		end = len(list)
	}
	return trim(list, 0, end).Of(list), rest, more
}
