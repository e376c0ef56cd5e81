package subscribe

import (
	"testing"

	"go.uber.org/goleak"

	"reverseproxy/dataplane/internal/activate/activatetest"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// smallTable is a valid route table.
func smallTable(port uint16) *routetablev1.RouteTable {
	rt, _ := activatetest.Table(port, "http://127.0.0.1:5001")
	return rt
}
