package compile

import (
	"google.golang.org/protobuf/types/known/durationpb"

	"reverseproxy/controlplane/internal/config"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// healthCheck sets the checks of an endpoint.
func healthCheck(out *routetablev1.Endpoint, h *config.HealthCheck) {
	if c := h.Active; c != nil {
		out.ActiveCheck = &routetablev1.ActiveCheck{
			Tcp: c.TCP, Method: c.Method, Path: c.Path, Host: c.Host, ExpectBody: c.ExpectBody, Port: uint32(c.Port),
			Interval: durationpb.New(c.Interval), Timeout: durationpb.New(c.Timeout), JitterPercent: c.JitterPercent,
			HealthyAfter: c.HealthyAfter, UnhealthyAfter: c.UnhealthyAfter,
		}
		for _, f := range c.Headers {
			out.ActiveCheck.Headers = append(out.ActiveCheck.Headers, &routetablev1.Header{Name: f.Name, Value: f.Value})
		}
		for _, s := range c.ExpectStatus {
			out.ActiveCheck.ExpectStatus = append(out.ActiveCheck.ExpectStatus, &routetablev1.StatusRange{First: s.First, Last: s.Last})
		}
	}
	if c := h.Passive; c != nil {
		out.PassiveCheck = &routetablev1.PassiveCheck{
			ConsecutiveFailures: c.ConsecutiveFailures, EjectFor: durationpb.New(c.EjectFor),
			MaxEjectedPercent: c.MaxEjectedPercent, On_5Xx: c.On5xx,
		}
	}
}
