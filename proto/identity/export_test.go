package identity

import (
	"context"
	"time"
)

// RunEvery is Run with another time between two looks at the files.
func RunEvery(ctx context.Context, c *Certificates, interval time.Duration) { c.run(ctx, interval) }
