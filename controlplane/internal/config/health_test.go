package config_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"reverseproxy/controlplane/internal/config"
)

func TestHealthCheck(t *testing.T) {
	active := func(change func(*config.ActiveCheck)) *config.HealthCheck {
		c := &config.ActiveCheck{
			Method: "GET", Path: "/", ExpectStatus: []config.StatusRange{{First: 200, Last: 299}},
			Interval: 5 * time.Second, Timeout: time.Second, JitterPercent: 20, HealthyAfter: 2, UnhealthyAfter: 3,
		}
		change(c)
		return &config.HealthCheck{Active: c}
	}
	tests := []struct {
		name, text string
		want       *config.HealthCheck
	}{
		{"none", "{}", &config.HealthCheck{}},
		{"all by default", "{active: {}}", active(func(*config.ActiveCheck) {})},
		{"statuses that touch", "{active: {expectStatus: [204, 3xx, 2xx, 401, 403, 402, 500]}}", active(func(c *config.ActiveCheck) {
			c.ExpectStatus = []config.StatusRange{{First: 200, Last: 399}, {First: 401, Last: 403}, {First: 500, Last: 500}}
		})},
		{"one status", "{active: {expectStatus: 204}}", active(func(c *config.ActiveCheck) {
			c.ExpectStatus = []config.StatusRange{{First: 204, Last: 204}}
		})},
		{"one class", `{active: {expectStatus: "4XX"}}`, active(func(c *config.ActiveCheck) {
			c.ExpectStatus = []config.StatusRange{{First: 400, Last: 499}}
		})},
		{"request", `{active: {path: "/h?x=1", method: POST, expectBody: ok, host: "H.example:81", headers: {x-b: "1", Authorization: a}, port: 81}}`,
			active(func(c *config.ActiveCheck) {
				c.Path, c.Method, c.ExpectBody, c.Host, c.Port = "/h?x=1", "POST", "ok", "H.example:81", 81
				c.Headers = []config.Header{{Name: "Authorization", Value: "a"}, {Name: "x-b", Value: "1"}}
			})},
		{"times", "{active: {interval: 2s, timeout: 2s, jitter: 0%, healthyAfter: 1, unhealthyAfter: 9}}", active(func(c *config.ActiveCheck) {
			c.Interval, c.Timeout, c.JitterPercent, c.HealthyAfter, c.UnhealthyAfter = 2*time.Second, 2*time.Second, 0, 1, 9
		})},
		{"a connection", "{active: {tcp: true, port: 81}}", active(func(c *config.ActiveCheck) {
			c.TCP, c.Port, c.Method, c.Path, c.ExpectStatus = true, 81, "", "", nil
		})},
		{"passive by default", "{passive: {}}", &config.HealthCheck{Passive: &config.PassiveCheck{
			ConsecutiveFailures: 5, EjectFor: 10 * time.Second, MaxEjectedPercent: 50,
		}}},
		{"passive", "{passive: {consecutiveFailures: 1, ejectFor: 1m, maxEjectedPercent: 100, on5xx: true}}", &config.HealthCheck{Passive: &config.PassiveCheck{
			ConsecutiveFailures: 1, EjectFor: time.Minute, MaxEjectedPercent: 100, On5xx: true,
		}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := load(t, "port: 8000\ndefaults: {healthCheck: "+test.text+"}\nendpoints:\n- from: /a\n  pool: [http://h]\n- from: /b\n  pool: [http://h]\n  healthCheck: "+test.text+"\n")
			if diff := cmp.Diff(c.Defaults.HealthCheck, *test.want); diff != "" {
				t.Errorf("defaults (-got +want):\n%s", diff)
			}
			if diff := cmp.Diff(c.Endpoints[1].HealthCheck, test.want); diff != "" {
				t.Errorf("endpoint (-got +want):\n%s", diff)
			}
			if c.Endpoints[0].HealthCheck != nil {
				t.Error("an endpoint without a check has one")
			}
		})
	}
}
