// Command topics is an unmodified go-micro v2.9.1 program that publishes or subscribes with the broker service. Where
// that is, is decided by the environment alone: MICRO_BROKER=service, and MICRO_PROXY, or 127.0.0.1:8001 without it.
//
//	topics sub TOPIC [QUEUE]      prints each message as one JSON object
//	topics pub TOPIC FROM COUNT   publishes so many numbers
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"sync"

	"github.com/micro/go-micro/v2"
	"github.com/micro/go-micro/v2/broker"
)

func main() {
	service := micro.NewService(micro.Name("it.topics"), micro.Flags())
	arguments := os.Args[1:]
	os.Args = os.Args[:1]
	service.Init()
	if err := run(service.Options().Broker, arguments); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(b broker.Broker, args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("topics sub TOPIC [QUEUE] | topics pub TOPIC FROM COUNT")
	}
	if err := b.Init(); err != nil {
		return err
	}
	if err := b.Connect(); err != nil {
		return err
	}
	switch args[0] {
	case "sub":
		return subscribe(b, args[1], args[2:])
	default:
		return publish(b, args[1], args[2:])
	}
}

func subscribe(b broker.Broker, topic string, queue []string) error {
	var printing sync.Mutex
	var options []broker.SubscribeOption
	if len(queue) == 1 {
		options = append(options, broker.Queue(queue[0]))
	}
	_, err := b.Subscribe(topic, func(event broker.Event) error {
		printing.Lock()
		defer printing.Unlock()
		message := event.Message()
		return json.NewEncoder(os.Stdout).Encode(map[string]interface{}{
			"header": message.Header, "body": string(message.Body),
		})
	}, options...)
	if err != nil {
		return err
	}
	fmt.Println("subscribed")
	select {}
}

func publish(b broker.Broker, topic string, args []string) error {
	from, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	count, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	for n := from; n < from+count; n++ {
		message := &broker.Message{
			Header: map[string]string{"X-Lower-case": "kept", "Micro-Topic": topic},
			Body:   []byte(strconv.Itoa(n)),
		}
		if err := b.Publish(topic, message); err != nil {
			return err
		}
	}
	fmt.Println("published")
	return nil
}
