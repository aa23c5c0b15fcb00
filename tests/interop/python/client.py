"""A grpcio client of `interop.lab.Probe`. Usage: client.py HOST:PORT CASE... ; `all` runs every case.

Prints one JSON object: for each case "ok" or what went wrong. Exit code 1 when a case failed. The cases `no_service`
and `not_micro` speak about answers that a network makes, so `all` leaves the first out when --direct is given.
"""

import hashlib
import json
import sys
import uuid

import grpc

PREFIX = "/interop.lab.Probe/"
DEADLINE_SECONDS = 20
MESSAGE_LIMIT = 4 * 1024 * 1024


def same(what, got, want):
    if got != want:
        raise AssertionError(f"{what}: got {got!r:.200}, want {want!r:.200}")


class Cases:
    def __init__(self, channel):
        self.channel = channel

    def unary(self, name):
        return self.channel.unary_unary(PREFIX + name)

    def case_unary(self):
        same("echo", self.unary("Echo")(b"\x00hello\xff", timeout=DEADLINE_SECONDS), b"\x00hello\xff")
        same("empty", self.unary("Echo")(b"", timeout=DEADLINE_SECONDS), b"")

    def case_parallel(self):
        calls = [self.unary("Echo").future(str(i).encode(), timeout=DEADLINE_SECONDS) for i in range(200)]
        same("answers", [c.result() for c in calls], [str(i).encode() for i in range(200)])

    def case_server_stream(self):
        call = self.channel.unary_stream(PREFIX + "ServerStream")
        want = {"count": 500, "size": 1000}
        got = list(call(json.dumps(want).encode(), timeout=DEADLINE_SECONDS))
        same("order", [int.from_bytes(m[:4], "big") for m in got], list(range(500)))
        same("sizes", {len(m) for m in got}, {1004})
        same("none", list(call(b'{"count":0,"size":0}', timeout=DEADLINE_SECONDS)), [])

    def case_client_stream(self):
        messages = [bytes([i % 256]) * i for i in range(500)]
        rsp = json.loads(self.channel.stream_unary(PREFIX + "ClientStream")(iter(messages), timeout=DEADLINE_SECONDS))
        same("count", rsp["count"], 500)
        same("sha256", rsp["sha256"], hashlib.sha256(b"".join(messages)).hexdigest())

    def case_bidi(self):
        messages = [b"%d" % i for i in range(2000)]
        got = list(self.channel.stream_stream(PREFIX + "Bidi")(iter(messages), timeout=DEADLINE_SECONDS))
        same("messages", got, messages)

    def case_ping_pong(self):
        import queue

        outgoing = queue.Queue()
        answers = self.channel.stream_stream(PREFIX + "Bidi")(iter(outgoing.get, None), timeout=DEADLINE_SECONDS)
        for i in range(50):
            outgoing.put(b"ball %d" % i)
            same("ball", next(answers), b"ball %d" % i)
        outgoing.put(None)
        same("rest", list(answers), [])

    def case_big(self):
        body = bytes(range(256)) * (MESSAGE_LIMIT // 256)
        same("4 MiB", self.unary("Echo")(body, timeout=DEADLINE_SECONDS) == body, True)

    def case_too_big(self):
        try:
            self.unary("Echo")(b"x" * (MESSAGE_LIMIT + 1), timeout=DEADLINE_SECONDS)
        except grpc.RpcError as error:
            same("code", error.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)
        else:
            raise AssertionError("a message above 4 MiB was answered")
        self.case_unary()

    def case_deadline(self):
        call_id = uuid.uuid4().hex.encode()
        try:
            self.unary("Hold")(call_id, timeout=0.5)
        except grpc.RpcError as error:
            same("code", error.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        else:
            raise AssertionError("the call outlived its deadline")
        same("service saw it", self.unary("Ended")(call_id, timeout=DEADLINE_SECONDS), b"ended")

    def case_deadline_shrinks(self):
        left = json.loads(self.unary("Seen")(b"", timeout=7))["left"]
        # grpcio rounds what it sends up, by less than a tenth.
        same(f"0 < {left} < 7.1", 0 < left < 7.1, True)

    def case_cancel(self):
        call_id = uuid.uuid4().hex.encode()
        call = self.channel.unary_stream(PREFIX + "HoldStream")(call_id, timeout=DEADLINE_SECONDS)
        same("first", next(call), b"first")
        call.cancel()
        same("code", call.code(), grpc.StatusCode.CANCELLED)
        same("service saw it", self.unary("Ended")(call_id, timeout=DEADLINE_SECONDS), b"ended")

    def case_metadata(self):
        sent = [("echo-text", "a, b=c"), ("echo-text", "again"), ("echo-data-bin", bytes(range(256)))]
        _, call = self.unary("Echo").with_call(b"m", metadata=sent, timeout=DEADLINE_SECONDS)
        for prefix, got in (("initial-", call.initial_metadata()), ("trailing-", call.trailing_metadata())):
            want = sorted((prefix + k, v) for k, v in sent)
            same(prefix, sorted((k, v) for k, v in got if k.startswith(prefix)), want)

    def case_details(self):
        for code in (3, 5, 7, 9, 13, 14, 16):
            try:
                self.unary("Fail")(str(code).encode(), timeout=DEADLINE_SECONDS)
            except grpc.RpcError as error:
                same("code", error.code().value[0], code)
                same("message", error.details(), "asked for \u00fcber %25\n")
                trailers = dict(error.trailing_metadata())
                same("details", trailers.get("grpc-status-details-bin"), bytes(range(256)))
                same("trailer", trailers.get("why"), "asked")
                same("micro-error", trailers.get("micro-error"), None)
            else:
                raise AssertionError(f"code {code} did not fail")

    def case_gzip(self):
        body = b"compress me " * 10000
        rsp = self.unary("Echo")(body, timeout=DEADLINE_SECONDS, compression=grpc.Compression.Gzip)
        same("gzip", rsp, body)

    def case_no_method(self):
        try:
            self.unary("NoSuchMethod")(b"", timeout=DEADLINE_SECONDS)
        except grpc.RpcError as error:
            same("code", error.code(), grpc.StatusCode.UNIMPLEMENTED)
            same("micro-error", dict(error.trailing_metadata()).get("micro-error"), None)
        else:
            raise AssertionError("an unknown method was answered")

    def case_no_service(self):
        try:
            self.channel.unary_unary("/interop.nobody.Probe/Echo")(b"", timeout=DEADLINE_SECONDS)
        except grpc.RpcError as error:
            same("code", error.code() in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND), True)
            told = dict(error.trailing_metadata()).get("micro-error")
            same("micro-error is there", bool(told), True)
        else:
            raise AssertionError("an unknown service was answered")


def main():
    arguments = [a for a in sys.argv[2:] if a != "--direct"]
    known = [n[5:] for n in dir(Cases) if n.startswith("case_")]
    if arguments == ["all"]:
        arguments = [n for n in known if not (n == "no_service" and "--direct" in sys.argv)]
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    report = {}
    with grpc.insecure_channel(sys.argv[1], options=options) as channel:
        cases = Cases(channel)
        for name in arguments:
            try:
                getattr(cases, "case_" + name)()
                report[name] = "ok"
            except (AssertionError, grpc.RpcError, StopIteration) as error:
                told = f"{error.code().name}: {error.details()}" if isinstance(error, grpc.RpcError) else str(error)
                report[name] = f"{type(error).__name__} {told}"
    print(json.dumps(report))
    sys.exit(any(v != "ok" for v in report.values()))


if __name__ == "__main__":
    main()
