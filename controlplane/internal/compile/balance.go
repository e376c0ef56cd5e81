package compile

import (
	"google.golang.org/protobuf/types/known/durationpb"

	"reverseproxy/controlplane/internal/config"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// balance sets how the endpoint chooses a backend.
func balance(out *routetablev1.Endpoint, e *config.Endpoint, defaults *config.Defaults) {
	onPanic := defaults.Panic
	if e.Panic != "" {
		onPanic = e.Panic
	}
	out.RefuseWhenUnhealthy = onPanic == config.Refuse
	l := &defaults.LoadBalancing
	if e.LoadBalancing != nil {
		l = e.LoadBalancing
	}
	if *l == (config.LoadBalancing{}) {
		return
	}
	out.LoadBalancing = &routetablev1.LoadBalancing{Policy: l.Policy}
	if l.On != nil {
		out.LoadBalancing.Key = &routetablev1.Key{Kind: l.On.Kind, Name: l.On.Name}
	}
	if l.SlowStart > 0 {
		out.LoadBalancing.SlowStart = durationpb.New(l.SlowStart)
	}
}
