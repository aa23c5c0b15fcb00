// Package wire holds the messages that the service and its client exchange as JSON.
package wire

// Service is the name both programs agree on.
const Service = "go.micro.srv.greeter"

// HelloReq asks for a greeting. The name "error" asks for a micro error instead.
type HelloReq struct {
	Name string `json:"name"`
}

// HelloRsp answers it, with the metadata the handler saw.
type HelloRsp struct {
	Message string            `json:"message"`
	Seen    map[string]string `json:"seen"`
}

// SlowReq asks the handler to wait for so many milliseconds, or for the end of its context.
type SlowReq struct {
	Millis int `json:"millis"`
}

// StatsReq asks for the counts.
type StatsReq struct{}

// StatsRsp tells how often handlers ran, and how often one saw its caller go away.
type StatsRsp struct {
	Hello     int64 `json:"hello"`
	Slow      int64 `json:"slow"`
	Cancelled int64 `json:"cancelled"`
	Echoed    int64 `json:"echoed"`
}

// Item is one message of a stream.
type Item struct {
	Seq int `json:"seq"`
}
