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
  "dataplanes": [],
  "draining": [],
  "unhealthyBackends": 0
}
`},
		{"one, after an error", &fleetv1.StatusResponse{
			Version: "v", Revision: 7, Config: &fleetv1.ConfigStatus{File: "f", Error: "bad", LoadedAt: at},
			Dataplanes: []*fleetv1.DataPlane{{
				Id: "a", Address: "h:1", State: fleetv1.DataPlaneState_DATA_PLANE_STATE_REJECTED, Version: "u", Revision: 6,
				Source: "disk", LastContactSeconds: 1.23456, RequestsTotal: 9, FailuresTotal: 2, Error: "no", Build: "1.2",
			}},
			Draining: []*fleetv1.DrainedBackend{
				{Url: "http://h:1", Configured: true},
				{Url: "http://h:2", InFlight: 3, DataPlanes: 1, Holders: []*fleetv1.DrainHolder{{Id: "a", SessionId: "s", Told: true, InFlight: 3}}},
			},
			UnhealthyBackends: 2,
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
      "failuresTotal": 2,
      "error": "no",
      "build": "1.2"
    }
  ],
  "draining": [
    {
      "url": "http://h:1",
      "inFile": true,
      "inFlight": 0,
      "dataplanes": 0,
      "unsettled": []
    },
    {
      "url": "http://h:2",
      "inFile": false,
      "inFlight": 3,
      "dataplanes": 1,
      "unsettled": [
        "a"
      ]
    }
  ],
  "unhealthyBackends": 2
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

func TestTheDocumentOfAnEndpoint(t *testing.T) {
	list := status.EndpointsFrom(&fleetv1.BackendsResponse{Backends: []*fleetv1.BackendStatus{
		{Endpoint: "b", Url: "http://h:3"},
		{
			Endpoint: "a", Url: "http://h:1", Weight: 3, DataPlanes: 3, Healthy: 2,
			Troubles: []*fleetv1.Trouble{{Reason: "refused", DataPlanes: 1}},
			Requests: 10, Failures: 2, RequestsPerSecond: 1.23456, FailuresPerSecond: 0.5, InFlight: 4,
		},
		{Endpoint: "a", Url: "http://h:2", Draining: true},
	}})
	if len(list) != 2 || list[1].Name != "b" {
		t.Fatalf("endpoints: %+v", list)
	}
	const want = `{
  "name": "a",
  "backends": [
    {
      "url": "http://h:1",
      "weight": 3,
      "draining": false,
      "dataplanes": 3,
      "healthy": 2,
      "troubles": [
        {
          "reason": "refused",
          "dataplanes": 1
        }
      ],
      "requestsPerSecond": 1.235,
      "errorsPerSecond": 0.5,
      "inFlight": 4,
      "requestsTotal": 10,
      "errorsTotal": 2
    },
    {
      "url": "http://h:2",
      "weight": 0,
      "draining": true,
      "dataplanes": 0,
      "healthy": 0,
      "troubles": [],
      "requestsPerSecond": 0,
      "errorsPerSecond": 0,
      "inFlight": 0,
      "requestsTotal": 0,
      "errorsTotal": 0
    }
  ]
}
`
	if diff := cmp.Diff(strings.Split(string(list[0].JSON()), "\n"), strings.Split(want, "\n")); diff != "" {
		t.Errorf("(-got +want):\n%s", diff)
	}
}
