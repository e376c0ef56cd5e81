package reconcile_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

// sent connects a data plane that runs a version and returns the first message of the
// table that it is sent.
func (c *controlPlane) sent(t *testing.T, version string) *routetablev1.Chunk {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+c.listen(t), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stream, err := routetablev1.NewRouteTableServiceClient(conn).Subscribe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&routetablev1.SubscribeRequest{Message: &routetablev1.SubscribeRequest_Hello{Hello: &routetablev1.Hello{
		Id: "edge", SessionId: "1", State: &routetablev1.State{Version: version},
		Features: []routetablev1.Feature{routetablev1.Feature_FEATURE_DELTA},
	}}}); err != nil {
		t.Fatal(err)
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if chunk := m.GetChunk(); chunk != nil {
			return chunk
		}
	}
}

// many has a number of endpoints, with ports from 6000 on.
func many(endpoints int) string {
	var b strings.Builder
	b.WriteString("port: 8000\nendpoints:\n")
	for i := range endpoints {
		fmt.Fprintf(&b, "- {from: /%d, pool: [http://localhost:%d, http://localhost:5000]}\n", i, 6000+i)
	}
	return b.String()
}

// What ran before is in the history, with the backends that were drained.
func TestEditWhileTheControlPlaneIsDownIsSentAsADelta(t *testing.T) {
	before := many(300)
	after := strings.Replace(before, "6007", "7007", 1)
	for _, test := range []struct {
		name string
		down func(*testing.T, *controlPlane)
		want routetablev1.Encoding
	}{
		{"edited", func(*testing.T, *controlPlane) {}, routetablev1.Encoding_ENCODING_DELTA_GZIP},
		{"the history is lost", func(t *testing.T, c *controlPlane) {
			if err := os.RemoveAll(c.history); err != nil {
				t.Fatal(err)
			}
		}, routetablev1.Encoding_ENCODING_GZIP},
		{"the history is damaged", func(t *testing.T, c *controlPlane) {
			write(t, filepath.Join(c.history, "0000000000000002.revision"), []byte("damaged"))
		}, routetablev1.Encoding_ENCODING_GZIP},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newControlPlane(t, before)
			if err := c.drain(t, "6001"); err != nil {
				t.Fatal(err)
			}
			ran := c.fleet.Desired().Version
			c.save(t, after)
			test.down(t, c)
			c.start(t)
			switch chunk := c.sent(t, ran); {
			case chunk.GetVersion() != c.fleet.Desired().Version || chunk.GetEncoding() != test.want:
				t.Errorf("got version %s as %s, want %s", chunk.GetVersion(), chunk.GetEncoding(), test.want)
			case test.want == routetablev1.Encoding_ENCODING_DELTA_GZIP && chunk.GetBase() != ran:
				t.Errorf("the delta starts from %s, not from %s", chunk.GetBase(), ran)
			}
		})
	}
}
