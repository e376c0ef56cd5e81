package loop

import (
	"reverseproxy/dataplane/internal/loop/epoll"
	"reverseproxy/dataplane/internal/loop/portable"
)

var drivers = []choice{{"epoll", epoll.New, epoll.SpareProcessors}, {"portable", portable.New, 0}}
