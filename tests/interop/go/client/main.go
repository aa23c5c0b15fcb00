// Command client is an unmodified go-micro v2.9.1 client. Its first argument is what to do; it prints one JSON object.
// Where the network is, is decided by the environment alone: MICRO_REGISTRY, MICRO_REGISTRY_ADDRESS, MICRO_PROXY.
// DIRECT=host:port dials that address instead, to prove the pair of programs without a network between them.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"interop/wire"

	"github.com/golang/protobuf/proto"
	"github.com/golang/protobuf/ptypes/wrappers"
	"github.com/micro/go-micro/v2"
	"github.com/micro/go-micro/v2/broker"
	"github.com/micro/go-micro/v2/client"
	raw "github.com/micro/go-micro/v2/codec/bytes"
	"github.com/micro/go-micro/v2/errors"
	"github.com/micro/go-micro/v2/metadata"
	"github.com/micro/go-micro/v2/registry"
	"github.com/micro/go-micro/v2/router"
	routes "github.com/micro/go-micro/v2/router/service"
)

const contentJSON = "application/json"

type result map[string]interface{}

type program struct {
	service micro.Service
	opts    []client.CallOption
}

func (p *program) call(ctx context.Context, name, endpoint string, req, rsp interface{}, opts ...client.CallOption) error {
	c := p.service.Client()
	return c.Call(ctx, c.NewRequest(name, endpoint, req, client.WithContentType(contentJSON)), rsp, append(p.opts, opts...)...)
}

// hello greets; more is metadata as KEY=VALUE.
func (p *program) hello(name string, more []string) (result, error) {
	md := metadata.Metadata{"X-Interop": "from-client", "x-lower": "also"}
	for _, pair := range more {
		if kv := strings.SplitN(pair, "=", 2); len(kv) == 2 {
			md[kv[0]] = kv[1]
		}
	}
	ctx := metadata.NewContext(context.Background(), md)
	var rsp wire.HelloRsp
	err := p.call(ctx, wire.Service, "Say.Hello", &wire.HelloReq{Name: name}, &rsp)
	return result{"message": rsp.Message, "seen": rsp.Seen}, err
}

// raw sends bytes that are already encoded and takes the answer undecoded: the content type stays protobuf.
func (p *program) raw(size int) (result, error) {
	c := p.service.Client()
	data := bytes.Repeat([]byte{0x00, 0xff, 0x7b, 0x0a}, size/4)
	body, err := proto.Marshal(&wrappers.BytesValue{Value: data})
	if err != nil {
		return nil, err
	}
	var rsp raw.Frame
	if err := c.Call(context.Background(), c.NewRequest(wire.Service, "Say.Raw", &raw.Frame{Data: body}), &rsp, p.opts...); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	want, err := proto.Marshal(&wrappers.BytesValue{Value: append(sum[:], data...)})
	return result{"same": bytes.Equal(rsp.Data, want), "bytes": len(data)}, err
}

func (p *program) slow(millis int) (result, error) {
	var rsp wire.HelloRsp
	err := p.call(context.Background(), wire.Service, "Say.Slow", &wire.SlowReq{Millis: millis}, &rsp,
		client.WithRetries(0), client.WithRequestTimeout(time.Second))
	return result{"message": rsp.Message}, err
}

func (p *program) stats() (result, error) {
	var rsp wire.StatsRsp
	err := p.call(context.Background(), wire.Service, "Say.Stats", &wire.StatsReq{}, &rsp)
	return result{"hello": rsp.Hello, "slow": rsp.Slow, "cancelled": rsp.Cancelled, "echoed": rsp.Echoed}, err
}

func (p *program) stream(endpoint string) (client.Stream, error) {
	c := p.service.Client()
	req := c.NewRequest(wire.Service, endpoint, &wire.Item{}, client.WithContentType(contentJSON), client.StreamingRequest())
	return c.Stream(context.Background(), req, p.opts...)
}

// count opens a server stream, sends one message and, as every v2 client, never half-closes.
func (p *program) count() (result, error) {
	stream, err := p.stream("Say.Count")
	if err != nil {
		return nil, err
	}
	if err := stream.Send(&wire.Item{Seq: 40}); err != nil {
		return nil, err
	}
	var got []int
	for i := 0; i < 3; i++ {
		var item wire.Item
		if err := stream.Recv(&item); err != nil {
			return result{"got": got}, err
		}
		got = append(got, item.Seq)
	}
	var item wire.Item
	end := stream.Recv(&item)
	return result{"got": got, "end": fmt.Sprint(end)}, nil
}

// echo sends n messages on one bidirectional stream while it reads them back in order.
func (p *program) echo(n int) (result, error) {
	stream, err := p.stream("Say.Echo")
	if err != nil {
		return nil, err
	}
	sent := make(chan error, 1)
	go func() {
		for i := 0; i < n; i++ {
			if err := stream.Send(&wire.Item{Seq: i}); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	for i := 0; i < n; i++ {
		var item wire.Item
		if err := stream.Recv(&item); err != nil {
			return result{"got": i}, err
		}
		if item.Seq != i {
			return result{"got": i}, fmt.Errorf("message %d arrived as number %d", item.Seq, i)
		}
	}
	if err := <-sent; err != nil {
		return result{"got": n}, err
	}
	return result{"got": n}, stream.Close()
}

// talk sends n messages on one bidirectional stream, each after the answer to the one before.
func (p *program) talk(n int) (result, error) {
	stream, err := p.stream("Say.Echo")
	if err != nil {
		return nil, err
	}
	for i := 0; i < n; i++ {
		if err := stream.Send(&wire.Item{Seq: i}); err != nil {
			return result{"got": i}, err
		}
		var item wire.Item
		if err := stream.Recv(&item); err != nil {
			return result{"got": i}, err
		}
		if item.Seq != i {
			return result{"got": i}, fmt.Errorf("message %d was answered with %d", i, item.Seq)
		}
	}
	return result{"got": n}, stream.Close()
}

func (p *program) list() (result, error) {
	services, err := p.service.Options().Registry.ListServices()
	names := []string{}
	for _, s := range services {
		names = append(names, s.Name)
	}
	return result{"names": names}, err
}

func (p *program) get(name string) (result, error) {
	services, err := p.service.Options().Registry.GetService(name)
	return result{"services": services}, err
}

// watch prints each registry event of one service as a line of its own, until it is killed.
func (p *program) watch(name string) (result, error) {
	w, err := p.service.Options().Registry.Watch(registry.WatchService(name))
	if err != nil {
		return nil, err
	}
	fmt.Println(`{"watching":true}`)
	for {
		event, err := w.Next()
		if err != nil {
			return nil, err
		}
		line, err := json.Marshal(result{"action": event.Action, "name": event.Service.Name, "nodes": len(event.Service.Nodes)})
		if err != nil {
			return nil, err
		}
		fmt.Println(string(line))
	}
}

// subscribe prints each message of a topic as a line of its own, until it is killed.
func (p *program) subscribe(topic string) (result, error) {
	b := p.service.Options().Broker
	if err := b.Init(); err != nil {
		return nil, err
	}
	if err := b.Connect(); err != nil {
		return nil, err
	}
	_, err := b.Subscribe(topic, func(e broker.Event) error {
		line, err := json.Marshal(result{"topic": e.Topic(), "header": e.Message().Header, "body": string(e.Message().Body)})
		fmt.Println(string(line))
		return err
	})
	if err != nil {
		return nil, err
	}
	fmt.Println(`{"subscribed":true}`)
	select {}
}

func (p *program) publish(topic, body string) (result, error) {
	b := p.service.Options().Broker
	if err := b.Init(); err != nil {
		return nil, err
	}
	if err := b.Connect(); err != nil {
		return nil, err
	}
	if err := b.Publish(topic, &broker.Message{Header: map[string]string{"X-Interop": "from-client"}, Body: []byte(body)}); err != nil {
		return nil, err
	}
	// The broker sends behind its back, and has no way to wait for it.
	time.Sleep(2 * time.Second)
	return result{}, nil
}

// route changes and reads the routing table of the node, with the router client of go-micro.
func (p *program) route(args []string) (result, error) {
	table := routes.NewRouter(router.Client(p.service.Client())).Table()
	if args[0] == "list" {
		all, err := table.List()
		names := []string{}
		for _, r := range all {
			names = append(names, r.Service)
		}
		return result{"names": names}, err
	}
	r := router.Route{Service: args[1], Address: args[2], Link: router.DefaultLink, Metric: 1}
	switch args[0] {
	case "create":
		return result{}, table.Create(r)
	case "delete":
		return result{}, table.Delete(r)
	}
	return nil, fmt.Errorf("unknown action %q", args[0])
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
		return p.hello(args[1], args[2:])
	case "raw":
		return p.raw(number())
	case "slow":
		return p.slow(number())
	case "stats":
		return p.stats()
	case "count":
		return p.count()
	case "echo":
		return p.echo(number())
	case "talk":
		return p.talk(number())
	case "unknown":
		var rsp wire.HelloRsp
		err := p.call(context.Background(), args[1], "Say.Hello", &wire.HelloReq{Name: "nobody"}, &rsp)
		return result{}, err
	case "list":
		return p.list()
	case "get":
		return p.get(args[1])
	case "watch":
		return p.watch(args[1])
	case "subscribe":
		return p.subscribe(args[1])
	case "publish":
		return p.publish(args[1], args[2])
	case "route":
		return p.route(args[1:])
	}
	return nil, fmt.Errorf("unknown action %q", args[0])
}

func main() {
	args := os.Args[1:]
	os.Args = os.Args[:1] // what is left is for go-micro's own flags
	service := micro.NewService(micro.Name("it.client"))
	service.Init()
	p := &program{service: service}
	if address := os.Getenv("DIRECT"); address != "" {
		p.opts = append(p.opts, client.WithAddress(address))
	}
	started := time.Now()
	out, err := p.run(args)
	if out == nil {
		out = result{}
	}
	out["elapsed_ms"] = time.Since(started).Milliseconds()
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
