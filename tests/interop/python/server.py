"""A grpcio service without generated code: every message is bytes, parameters are JSON.

Usage: server.py ADDRESS PORT. Prints one line when it listens. The service is `interop.lab.Probe`, so its name on the
network is `interop.lab`.
"""

import hashlib
import json
import sys
import threading
from concurrent import futures

import grpc

SERVICE = "interop.lab.Probe"
WAIT_LIMIT_SECONDS = 20.0
# Not UTF-8 on purpose: a status detail is bytes and must arrive as it left.
DETAILS = bytes(range(256))


class Watchers:
    """One event per call id, set when that call's context ends."""

    def __init__(self):
        self._lock = threading.Lock()
        self._events = {}

    def event(self, call_id):
        with self._lock:
            return self._events.setdefault(call_id, threading.Event())


WATCHERS = Watchers()


def echo(request, context):
    """Returns the message; metadata named echo-* comes back as initial and trailing metadata."""
    sent = [(k, v) for k, v in context.invocation_metadata() if k.startswith("echo-")]
    context.send_initial_metadata([("initial-" + k, v) for k, v in sent])
    context.set_trailing_metadata([("trailing-" + k, v) for k, v in sent])
    return request


def seen(request, context):
    """Tells what the handler sees of the call: metadata and the time that is left."""
    left = context.time_remaining()
    names = sorted({k for k, _ in context.invocation_metadata()})
    return json.dumps({"left": left, "names": names, "peer": context.peer()}).encode()


def server_stream(request, context):
    """Sends `count` messages of `size` bytes, the number of each in its first four bytes."""
    want = json.loads(request)
    for i in range(want["count"]):
        yield i.to_bytes(4, "big") + b"s" * want["size"]


def client_stream(requests, context):
    """Counts and hashes what it receives."""
    digest, count = hashlib.sha256(), 0
    for message in requests:
        digest.update(message)
        count += 1
    return json.dumps({"count": count, "sha256": digest.hexdigest()}).encode()


def bidi(requests, context):
    """Echoes each message as soon as it arrives."""
    yield from requests


def hold(request, context):
    """Waits until the caller has gone; `Ended` tells when."""
    ended = WATCHERS.event(request.decode())
    context.add_callback(ended.set)
    ended.wait(WAIT_LIMIT_SECONDS)
    return b"nobody left"


def hold_stream(request, context):
    """Sends one message, then nothing, until the caller has gone."""
    ended = WATCHERS.event(request.decode())
    context.add_callback(ended.set)
    yield b"first"
    ended.wait(WAIT_LIMIT_SECONDS)


def ended(request, context):
    """Answers when the call of this id has ended, or says that it has not."""
    gone = WATCHERS.event(request.decode()).wait(WAIT_LIMIT_SECONDS / 2)
    return b"ended" if gone else b"still running"


def fail(request, context):
    """Ends with the code asked for, a message that needs escaping, and binary details."""
    context.set_trailing_metadata([("grpc-status-details-bin", DETAILS), ("why", "asked")])
    code = next(c for c in grpc.StatusCode if c.value[0] == int(request))
    context.abort(code, "asked for \u00fcber %25\n")


def main():
    unary = grpc.unary_unary_rpc_method_handler
    handlers = {
        "Echo": unary(echo),
        "Seen": unary(seen),
        "Hold": unary(hold),
        "Ended": unary(ended),
        "Fail": unary(fail),
        "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
        "HoldStream": grpc.unary_stream_rpc_method_handler(hold_stream),
        "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
        "Bidi": grpc.stream_stream_rpc_method_handler(bidi),
    }
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=32))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_insecure_port(f"{sys.argv[1]}:{sys.argv[2]}")
    server.start()
    print("listening", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
