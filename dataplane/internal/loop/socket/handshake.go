package socket

import (
	"context"
	"time"
)

// handshakeTime is how long connections that are being made when a socket leaves
// have to become established: a round trip, to the far side of the world.
const handshakeTime = 200 * time.Millisecond

// AwaitHandshakes waits until connections that had begun to be made are
// established, or ctx ends.
func AwaitHandshakes(ctx context.Context) {
	select {
	case <-time.After(handshakeTime):
	case <-ctx.Done():
	}
}
