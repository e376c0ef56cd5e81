//go:build unix && !linux

package socket

import "context"

// Leave cannot do anything here: connections that are being made when a listener
// closes are reset.
func Leave(context.Context, int) {}
