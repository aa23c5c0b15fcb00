// Command service is an unmodified go-micro v2.9.1 service. Where it registers and listens is decided by the
// environment alone: MICRO_REGISTRY, MICRO_REGISTRY_ADDRESS, MICRO_SERVER_ADDRESS, MICRO_PROXY.
package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"interop/wire"

	"github.com/golang/protobuf/ptypes/wrappers"
	"github.com/micro/go-micro/v2"
	"github.com/micro/go-micro/v2/errors"
	"github.com/micro/go-micro/v2/metadata"
	"github.com/micro/go-micro/v2/server"
)

// Say is the handler; its method names are the endpoints.
type Say struct {
	hello, slow, cancelled, echoed int64
}

// Hello greets, or fails with a micro error whose every field is told apart by the caller.
func (s *Say) Hello(ctx context.Context, req *wire.HelloReq, rsp *wire.HelloRsp) error {
	atomic.AddInt64(&s.hello, 1)
	if req.Name == "error" {
		return errors.Forbidden("go.micro.srv.greeter.say", "no greeting for %s", req.Name)
	}
	rsp.Message = "Hello " + req.Name
	rsp.Seen = map[string]string{}
	if md, ok := metadata.FromContext(ctx); ok {
		for k, v := range md {
			rsp.Seen[k] = v
		}
	}
	// Which of several this is: go-micro registers under this version.
	rsp.Seen["served-by"] = os.Getenv("MICRO_SERVER_VERSION")
	return nil
}

// Raw answers a protobuf message with the digest of its bytes followed by the bytes themselves.
func (s *Say) Raw(ctx context.Context, req *wrappers.BytesValue, rsp *wrappers.BytesValue) error {
	sum := sha256.Sum256(req.Value)
	rsp.Value = append(sum[:], req.Value...)
	return nil
}

// Slow waits, and counts the callers that did not.
func (s *Say) Slow(ctx context.Context, req *wire.SlowReq, rsp *wire.HelloRsp) error {
	atomic.AddInt64(&s.slow, 1)
	select {
	case <-time.After(time.Duration(req.Millis) * time.Millisecond):
		rsp.Message = "waited"
		return nil
	case <-ctx.Done():
		atomic.AddInt64(&s.cancelled, 1)
		return errors.Timeout("go.micro.srv.greeter.say", "%v", ctx.Err())
	}
}

// Stats tells the counts.
func (s *Say) Stats(ctx context.Context, req *wire.StatsReq, rsp *wire.StatsRsp) error {
	rsp.Hello = atomic.LoadInt64(&s.hello)
	rsp.Slow = atomic.LoadInt64(&s.slow)
	rsp.Cancelled = atomic.LoadInt64(&s.cancelled)
	rsp.Echoed = atomic.LoadInt64(&s.echoed)
	return nil
}

// Count receives one request and answers with three messages. The caller does not half-close.
func (s *Say) Count(ctx context.Context, stream server.Stream) error {
	var first wire.Item
	if err := stream.Recv(&first); err != nil {
		return err
	}
	for i := 1; i <= 3; i++ {
		if err := stream.Send(&wire.Item{Seq: first.Seq + i}); err != nil {
			return err
		}
	}
	return nil
}

// Echo returns every message until the caller ends.
func (s *Say) Echo(ctx context.Context, stream server.Stream) error {
	for {
		var item wire.Item
		if err := stream.Recv(&item); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		atomic.AddInt64(&s.echoed, 1)
		if err := stream.Send(&item); err != nil {
			return err
		}
	}
}

func main() {
	service := micro.NewService(
		micro.Name(wire.Service),
		micro.AfterStart(func() error { fmt.Println("started"); return nil }),
	)
	service.Init()
	if err := micro.RegisterHandler(service.Server(), new(Say)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := service.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
