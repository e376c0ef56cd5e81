package status_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"reverseproxy/controlplane/internal/status"
	fleetv1 "reverseproxy/proto/fleet/v1"
)

// The document is a contract: names, types, and empty instead of null.
func TestTheDocument(t *testing.T) {
	at := timestamppb.New(time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600)))
	for _, test := range []struct {
		name string
		in   *fleetv1.StatusResponse
		want string
	}{
		{"nobody", &fleetv1.StatusResponse{
			Version: "v", Revision: 7, Config: &fleetv1.ConfigStatus{File: "f", Ok: true, LoadedAt: at},
		}, `{
  "version": "v",
  "revision": 7,
  "config": {
    "file": "f",
    "lastLoad": "ok",
    "error": "",
    "loadedAt": "2026-01-02T02:04:05Z"
  },
  "dataplanes": []
}
`},
		{"one, after an error", &fleetv1.StatusResponse{
			Version: "v", Revision: 7, Config: &fleetv1.ConfigStatus{File: "f", Error: "bad", LoadedAt: at},
			Dataplanes: []*fleetv1.DataPlane{{
				Id: "a", Address: "h:1", State: fleetv1.DataPlaneState_DATA_PLANE_STATE_REJECTED, Version: "u", Revision: 6,
				Source: "disk", LastContactSeconds: 1.23456, RequestsTotal: 9, Error: "no",
			}},
		}, `{
  "version": "v",
  "revision": 7,
  "config": {
    "file": "f",
    "lastLoad": "error",
    "error": "bad",
    "loadedAt": "2026-01-02T02:04:05Z"
  },
  "dataplanes": [
    {
      "id": "a",
      "address": "h:1",
      "labels": {},
      "state": "rejected",
      "version": "u",
      "revision": 6,
      "source": "disk",
      "lastContactSeconds": 1.235,
      "requestsTotal": 9,
      "error": "no"
    }
  ]
}
`},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := string(status.From(test.in).JSON())
			if diff := cmp.Diff(strings.Split(got, "\n"), strings.Split(test.want, "\n")); diff != "" {
				t.Errorf("(-got +want):\n%s", diff)
			}
		})
	}
}
