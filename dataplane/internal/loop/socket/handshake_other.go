//go:build unix && !linux

package socket

// IgnoreSYN cannot be done here: connections that are being made when a listener
// closes are reset.
func IgnoreSYN(int) bool { return false }
