// Command v3 is a micro v3.18.5 program. With the argument "serve" it is a service; else it does what its arguments
// say, once, and prints one JSON object. Where the network is, is decided by the environment alone: MICRO_PROXY.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/micro/micro/v3/service"
	"github.com/micro/micro/v3/service/auth"
	"github.com/micro/micro/v3/service/broker"
	"github.com/micro/micro/v3/service/client"
	"github.com/micro/micro/v3/service/events"
	eventsclient "github.com/micro/micro/v3/service/events/client"
	"github.com/micro/micro/v3/service/registry"
	"github.com/micro/micro/v3/service/store"
)

// Req and Rsp are what the handler takes and gives, as JSON.
type Req struct {
	Name string `json:"name"`
}

// Rsp is the answer.
type Rsp struct {
	Message string `json:"message"`
	Account string `json:"account"`
}

// Hello is the handler; its method names are the endpoints.
type Hello struct{}

// Call greets, and says who called as auth tells it.
func (h *Hello) Call(ctx context.Context, req *Req, rsp *Rsp) error {
	rsp.Message = "Hello " + req.Name
	if account, ok := auth.AccountFromContext(ctx); ok {
		rsp.Account = account.Type
	}
	return nil
}

type result map[string]interface{}

func do(args []string) (result, error) {
	switch args[0] {
	case "call":
		var rsp Rsp
		req := client.DefaultClient.NewRequest("hello", "Hello.Call", &Req{Name: args[1]}, client.WithContentType("application/json"))
		err := client.DefaultClient.Call(context.Background(), req, &rsp, client.WithAuthToken())
		return result{"message": rsp.Message, "account": rsp.Account}, err
	case "pub":
		for _, body := range args[2:] {
			message := broker.Message{Header: map[string]string{"X-lower-Case": "kept"}, Body: []byte(body)}
			if err := broker.Publish(args[1], &message); err != nil {
				return result{}, err
			}
		}
		return result{"published": len(args) - 2}, nil
	case "sub":
		return result{}, sub(args[1], args[2:])
	case "emit":
		stream := eventsclient.NewStream()
		for n, body := range args[2:] {
			metadata := events.WithMetadata(map[string]string{"X-lower-Case": "kept"})
			if err := stream.Publish(args[1], []byte(body), metadata); err != nil {
				return result{"emitted": n}, err
			}
		}
		return result{"emitted": len(args) - 2}, nil
	case "consume":
		return result{}, consume(args[1], args[2], args[3], args[4:])
	case "events":
		limit, _ := strconv.ParseInt(args[2], 10, 64)
		offset, _ := strconv.ParseInt(args[3], 10, 64)
		kept, err := eventsclient.NewStore().Read(args[1], events.ReadLimit(uint(limit)), events.ReadOffset(uint(offset)))
		bodies := []string{}
		for _, e := range kept {
			bodies = append(bodies, string(e.Payload))
		}
		return result{"bodies": bodies}, err
	case "get":
		services, err := registry.DefaultRegistry.GetService(args[1])
		return result{"services": services}, err
	case "list":
		services, err := registry.DefaultRegistry.ListServices()
		names := []string{}
		for _, s := range services {
			names = append(names, s.Name)
		}
		return result{"names": names}, err
	case "write":
		ttl, _ := time.ParseDuration(args[3])
		return result{}, store.Write(&store.Record{Key: args[1], Value: []byte(args[2]), Expiry: ttl})
	case "read":
		records, err := store.Read(args[1])
		values := []string{}
		for _, r := range records {
			values = append(values, string(r.Value))
		}
		return result{"values": values}, err
	case "keys":
		keys, err := store.List(store.ListPrefix(args[1]))
		return result{"keys": keys}, err
	case "delete":
		return result{}, store.Delete(args[1])
	}
	return nil, fmt.Errorf("what is %q?", args[0])
}

// consume prints each event of a topic as one JSON object, for ever. Of a group it says ack or nack; "auto" says nothing. It
// begins with what was published since so many seconds, or with the next.
func consume(topic, group, word string, since []string) error {
	options := []events.ConsumeOption{events.WithGroup(group)}
	if word != "auto" {
		options = append(options, events.WithAutoAck(false, 2*time.Second))
	}
	if len(since) > 0 {
		seconds, _ := strconv.Atoi(since[0])
		options = append(options, events.WithOffset(time.Now().Add(-time.Duration(seconds)*time.Second)))
	}
	come, err := eventsclient.NewStream().Consume(topic, options...)
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	for event := range come {
		if err := out.Encode(result{"id": event.ID, "topic": event.Topic, "body": string(event.Payload), "metadata": event.Metadata}); err != nil {
			return err
		}
		switch word {
		case "ack":
			err = event.Ack()
		case "nack":
			err = event.Nack()
		}
		if err != nil {
			return err
		}
	}
	return fmt.Errorf("the stream has ended")
}

// sub prints each message of a topic as one JSON object, for ever.
func sub(topic string, queue []string) error {
	var options []broker.SubscribeOption
	if len(queue) > 0 {
		options = append(options, broker.Queue(queue[0]))
	}
	out := json.NewEncoder(os.Stdout)
	_, err := broker.DefaultBroker.Subscribe(topic, func(m *broker.Message) error {
		return out.Encode(result{"header": m.Header, "body": string(m.Body)})
	}, options...)
	if err != nil {
		return err
	}
	select {}
}

func main() {
	args := os.Args[1:]
	// What is to be done is not for the command line of the library.
	os.Args = os.Args[:1]
	if len(args) == 0 || args[0] == "serve" {
		srv := service.New(service.Name("hello"), service.Version("v3"))
		if err := srv.Handle(new(Hello)); err != nil {
			panic(err)
		}
		if err := srv.Run(); err != nil {
			panic(err)
		}
		return
	}
	service.New(service.Name("client"))
	out, err := do(args)
	if out == nil {
		out = result{}
	}
	if err != nil {
		out["error"] = err.Error()
	}
	if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
		panic(err)
	}
}
