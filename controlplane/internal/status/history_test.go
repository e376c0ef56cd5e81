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

func TestTheDocumentOfTheHistory(t *testing.T) {
	for _, test := range []struct {
		name string
		in   *fleetv1.HistoryResponse
		want string
	}{
		{"nothing", &fleetv1.HistoryResponse{}, "{\n  \"kept\": false,\n  \"revisions\": []\n}\n"},
		{"a rollback", &fleetv1.HistoryResponse{Kept: true, Revisions: []*fleetv1.Revision{{
			Revision: 8, Version: "v", AcceptedAt: timestamppb.New(time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600))),
			Author: "ann", Message: "too slow", Origin: fleetv1.Origin_ORIGIN_ROLLBACK, Restores: 6, Size: 120, Endpoints: 3, Outcome: "done",
		}}}, `{
  "kept": true,
  "revisions": [
    {
      "revision": 8,
      "version": "v",
      "acceptedAt": "2026-01-02T02:04:05Z",
      "author": "ann",
      "message": "too slow",
      "origin": "rollback",
      "restores": 6,
      "size": 120,
      "endpoints": 3,
      "outcome": "done"
    }
  ]
}
`},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(strings.Split(string(status.HistoryFrom(test.in).JSON()), "\n"), strings.Split(test.want, "\n")); diff != "" {
				t.Errorf("(-got +want):\n%s", diff)
			}
		})
	}
}

func TestTheDocumentOfADiff(t *testing.T) {
	got := string(status.DiffFrom(6, &fleetv1.DiffResponse{To: 8, Unified: "-a\n+b\n", Changes: []*fleetv1.Change{
		{Kind: fleetv1.ChangeKind_CHANGE_KIND_CHANGED, Subject: "endpoint home", Detail: "weight 1 → 3", Endpoint: "home"},
	}}).JSON())
	const want = `{
  "from": 6,
  "to": 8,
  "changes": [
    {
      "kind": "changed",
      "subject": "endpoint home",
      "detail": "weight 1 → 3",
      "endpoint": "home"
    }
  ],
  "unified": "-a\n+b\n"
}
`
	if diff := cmp.Diff(strings.Split(got, "\n"), strings.Split(want, "\n")); diff != "" {
		t.Errorf("(-got +want):\n%s", diff)
	}
	if got := string(status.DiffFrom(1, &fleetv1.DiffResponse{}).JSON()); !strings.Contains(got, `"changes": []`) {
		t.Errorf("without changes: %s", got)
	}
}
