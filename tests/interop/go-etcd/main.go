// Command etcd does with etcd's own client library what the etcd registry of go-micro v6 does with it: register with a
// lease that one long stream keeps alive, read by prefix, watch with previous values. It prints one JSON object a line.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

func print(line map[string]interface{}) {
	if err := json.NewEncoder(os.Stdout).Encode(line); err != nil {
		panic(err)
	}
}

func run(ctx context.Context, c *clientv3.Client, args []string) error {
	switch args[0] {
	case "register":
		ttl, err := strconv.ParseInt(args[3], 10, 64)
		if err != nil {
			return err
		}
		if _, err := c.Get(ctx, args[1], clientv3.WithSerializable()); err != nil {
			return err
		}
		lease, err := c.Grant(ctx, ttl)
		if err != nil {
			return err
		}
		if _, err := c.Put(ctx, args[1], args[2], clientv3.WithLease(lease.ID)); err != nil {
			return err
		}
		alive, err := c.KeepAlive(ctx, lease.ID)
		if err != nil {
			return err
		}
		print(map[string]interface{}{"registered": args[1]})
		go func() {
			for range alive {
				print(map[string]interface{}{"alive": true})
			}
			print(map[string]interface{}{"lost": true})
		}()
		// Until its input ends: then it goes without a word, as a killed program does.
		_, err = io.Copy(io.Discard, os.Stdin)
		return err
	case "get":
		rsp, err := c.Get(ctx, args[1], clientv3.WithPrefix(), clientv3.WithSerializable())
		if err != nil {
			return err
		}
		for _, kv := range rsp.Kvs {
			print(map[string]interface{}{"key": string(kv.Key), "value": string(kv.Value)})
		}
		print(map[string]interface{}{"revision": rsp.Header.Revision, "count": rsp.Count})
		return nil
	case "watch":
		// Both on one stream of one connection.
		first := c.Watch(ctx, args[1], clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithCreatedNotify())
		second := c.Watch(ctx, args[2], clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithCreatedNotify())
		for {
			var rsp clientv3.WatchResponse
			var which string
			select {
			case rsp = <-first:
				which = args[1]
			case rsp = <-second:
				which = args[2]
			}
			if err := rsp.Err(); err != nil {
				return err
			}
			if rsp.Created {
				print(map[string]interface{}{"watching": which})
			}
			for _, ev := range rsp.Events {
				action := "delete"
				value := ""
				if ev.PrevKv != nil {
					value = string(ev.PrevKv.Value)
				}
				if ev.IsCreate() {
					action, value = "create", string(ev.Kv.Value)
				} else if ev.IsModify() {
					action, value = "update", string(ev.Kv.Value)
				}
				print(map[string]interface{}{"watch": which, "action": action, "key": string(ev.Kv.Key), "value": value, "revision": rsp.Header.Revision})
			}
		}
	}
	return fmt.Errorf("what is %q?", args[0])
}

func main() {
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{os.Args[1]}, DialTimeout: 5 * time.Second,
		Username: os.Getenv("ETCD_USERNAME"), Password: os.Getenv("ETCD_PASSWORD")})
	if err == nil {
		err = run(context.Background(), c, os.Args[2:])
	}
	if err != nil {
		print(map[string]interface{}{"error": err.Error()})
		os.Exit(1)
	}
}
