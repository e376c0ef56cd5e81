package table_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"reverseproxy/dataplane/internal/accesslog"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

func TestAccessLog(t *testing.T) {
	rt := wireTable()
	if tab := compile(t, rt, newState()); tab.AccessLog != nil || tab.RequestID {
		t.Errorf("access log %v, request ids %t by default", tab.AccessLog, tab.RequestID)
	}
	rt.RequestId = true
	for format, want := range map[routetablev1.AccessLogFormat]accesslog.Format{
		routetablev1.AccessLogFormat_ACCESS_LOG_FORMAT_JSON:     accesslog.JSON,
		routetablev1.AccessLogFormat_ACCESS_LOG_FORMAT_COMMON:   accesslog.Common,
		routetablev1.AccessLogFormat_ACCESS_LOG_FORMAT_COMBINED: accesslog.Combined,
	} {
		rt.AccessLog = &routetablev1.AccessLog{Path: "/log", Format: format, SamplePerMillion: 7}
		tab := compile(t, rt, newState())
		if diff := cmp.Diff(&accesslog.Settings{Path: "/log", Format: want, PerMillion: 7}, tab.AccessLog); diff != "" || !tab.RequestID {
			t.Errorf("%v: request ids %t (-want +got):\n%s", format, tab.RequestID, diff)
		}
	}
}
