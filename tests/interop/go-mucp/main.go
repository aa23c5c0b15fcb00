// Command go-mucp is an unmodified go-micro v5 program (v4 when its imports are said to be of that), service and client
// in one: MUCP both ways, as it is without any option. Its first argument is what to do; a client prints one JSON object.
// Where the network is, is decided by the environment alone: MICRO_REGISTRY, MICRO_PROXY, MICRO_SERVER_ADDRESS.
// DIRECT=host:port dials that address instead, to prove the pair of programs without a network between them.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"go-micro.dev/v5"
	"go-micro.dev/v5/client"
	"go-micro.dev/v5/errors"
	"go-micro.dev/v5/metadata"
	"go-micro.dev/v5/server"
)

const (
	name = "go.micro.srv.greeter"
	// Its messages are no protobuf.
	contentJSON = "application/json"
)

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
	Slow      int64 `json:"slow"`
	Cancelled int64 `json:"cancelled"`
	Echoed    int64 `json:"echoed"`
}

// Item is one message of a stream.
type Item struct {
	Seq int `json:"seq"`
}

// Say is the handler; its method names are the endpoints.
type Say struct{ slow, cancelled, echoed int64 }

// Hello greets, or fails with a micro error whose every field is told apart by the caller.
func (s *Say) Hello(ctx context.Context, req *HelloReq, rsp *HelloRsp) error {
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
	return nil
}

// Slow waits, and counts the callers that did not.
func (s *Say) Slow(ctx context.Context, req *SlowReq, rsp *HelloRsp) error {
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
func (s *Say) Stats(ctx context.Context, req *StatsReq, rsp *StatsRsp) error {
	rsp.Slow, rsp.Cancelled = atomic.LoadInt64(&s.slow), atomic.LoadInt64(&s.cancelled)
	rsp.Echoed = atomic.LoadInt64(&s.echoed)
	return nil
}

// Count receives one request and answers with three messages.
func (s *Say) Count(ctx context.Context, stream server.Stream) error {
	var first Item
	if err := stream.Recv(&first); err != nil {
		return err
	}
	for i := 1; i <= 3; i++ {
		if err := stream.Send(&Item{Seq: first.Seq + i}); err != nil {
			return err
		}
	}
	return nil
}

// Echo returns every message until the caller ends.
func (s *Say) Echo(ctx context.Context, stream server.Stream) error {
	for {
		var one Item
		if err := stream.Recv(&one); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		atomic.AddInt64(&s.echoed, 1)
		if err := stream.Send(&one); err != nil {
			return err
		}
	}
}

type result map[string]interface{}

type program struct {
	service micro.Service
	opts    []client.CallOption
}

func (p *program) call(ctx context.Context, service, endpoint string, req, rsp interface{}, opts ...client.CallOption) error {
	c := p.service.Client()
	return c.Call(ctx, c.NewRequest(service, endpoint, req, client.WithContentType(contentJSON)), rsp, append(p.opts, opts...)...)
}

func (p *program) hello(who string) (result, error) {
	ctx := metadata.NewContext(context.Background(), metadata.Metadata{"X-Interop": "from-client", "x-lower": "also"})
	var rsp HelloRsp
	err := p.call(ctx, name, "Say.Hello", &HelloReq{Name: who}, &rsp)
	return result{"message": rsp.Message, "seen": rsp.Seen, "bytes": len(rsp.Message)}, err
}

func (p *program) slow(millis int) (result, error) {
	var rsp HelloRsp
	err := p.call(context.Background(), name, "Say.Slow", &SlowReq{Millis: millis}, &rsp,
		client.WithRetries(0), client.WithRequestTimeout(time.Second))
	return result{"message": rsp.Message}, err
}

func (p *program) stats() (result, error) {
	var rsp StatsRsp
	err := p.call(context.Background(), name, "Say.Stats", &StatsReq{}, &rsp)
	return result{"slow": rsp.Slow, "cancelled": rsp.Cancelled, "echoed": rsp.Echoed}, err
}

func (p *program) stream(endpoint string) (client.Stream, error) {
	c := p.service.Client()
	req := c.NewRequest(name, endpoint, &Item{}, client.WithContentType(contentJSON), client.StreamingRequest())
	return c.Stream(context.Background(), req, p.opts...)
}

// count opens a server stream, sends one message and, as every such client, never half-closes.
func (p *program) count() (result, error) {
	stream, err := p.stream("Say.Count")
	if err != nil {
		return nil, err
	}
	if err := stream.Send(&Item{Seq: 40}); err != nil {
		return nil, err
	}
	got := []int{}
	for i := 0; i < 3; i++ {
		var one Item
		if err := stream.Recv(&one); err != nil {
			return result{"got": got}, err
		}
		got = append(got, one.Seq)
	}
	var one Item
	end := stream.Recv(&one)
	return result{"got": got, "end": fmt.Sprint(end)}, nil
}

// talk sends n messages on one bidirectional stream, each after the answer to the one before.
func (p *program) talk(n int) (result, error) {
	stream, err := p.stream("Say.Echo")
	if err != nil {
		return nil, err
	}
	for i := 0; i < n; i++ {
		if err := stream.Send(&Item{Seq: i}); err != nil {
			return result{"got": i}, err
		}
		var one Item
		if err := stream.Recv(&one); err != nil {
			return result{"got": i}, err
		}
		if one.Seq != i {
			return result{"got": i}, fmt.Errorf("message %d was answered with %d", i, one.Seq)
		}
	}
	return result{"got": n}, stream.Close()
}

func (p *program) run(args []string) (result, error) {
	number := func() int {
		n, err := strconv.Atoi(args[1])
		if err != nil {
			panic(err)
		}
		return n
	}
	switch args[0] {
	case "hello":
		return p.hello(args[1])
	case "long":
		name := make([]byte, number())
		for i := range name {
			name[i] = 'x'
		}
		out, err := p.hello(string(name))
		delete(out, "message")
		return out, err
	case "slow":
		return p.slow(number())
	case "stats":
		return p.stats()
	case "count":
		return p.count()
	case "talk":
		return p.talk(number())
	case "unknown":
		var rsp HelloRsp
		return result{}, p.call(context.Background(), args[1], "Say.Hello", &HelloReq{Name: "nobody"}, &rsp)
	}
	return nil, fmt.Errorf("unknown action %q", args[0])
}

// serve offers the handler until it is ended.
func serve() error {
	service := micro.NewService(
		micro.Name(name),
		micro.AfterStart(func() error { fmt.Println("started"); return nil }),
	)
	service.Init()
	// Told where to listen, it forgets the name that the program gave it.
	if err := service.Server().Init(server.Name(name)); err != nil {
		return err
	}
	if err := micro.RegisterHandler(service.Server(), new(Say)); err != nil {
		return err
	}
	return service.Run()
}

func main() {
	args := os.Args[1:]
	os.Args = os.Args[:1] // what is left is for go-micro's own flags
	if args[0] == "serve" {
		if err := serve(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	service := micro.NewService(micro.Name("it.client"))
	service.Init()
	p := &program{service: service}
	if address := os.Getenv("DIRECT"); address != "" {
		p.opts = append(p.opts, client.WithAddress(address))
	}
	out, err := p.run(args)
	if out == nil {
		out = result{}
	}
	if err != nil {
		e := errors.Parse(err.Error())
		out["error"] = result{"id": e.Id, "code": e.Code, "detail": e.Detail, "status": e.Status}
	}
	if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err != nil {
		os.Exit(1)
	}
}
