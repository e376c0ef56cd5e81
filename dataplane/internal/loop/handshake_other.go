//go:build unix && !linux

package loop

import "net"

// ignoreSYN cannot be done here: connections that are being made when a listener
// closes are reset.
func ignoreSYN(*net.TCPListener) bool { return false }
