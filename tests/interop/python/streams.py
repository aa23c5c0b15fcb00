"""The official NATS client for Python (nats-py), unmodified, with streams of a node at an address.

    streams.py ADDRESS publish SUBJECT FROM COUNT       prints "stored NUMBER SEQUENCE" or "refused NUMBER WHY" for each
    streams.py ADDRESS bulk SUBJECT COUNT BYTES         publishes messages of so many bytes; prints as publish does
    streams.py ADDRESS consume STREAM CONSUMER COUNT WORD [SUBJECT]
                                                        prints each message as JSON and says ack, nak, term or nothing of it
    streams.py ADDRESS look STREAM                      prints how a stream stands, as JSON
    streams.py ADDRESS checks STREAM SUBJECT            checks what one client alone can see; the stream is empty
"""

import asyncio
import datetime
import json
import sys

import nats
from nats.errors import TimeoutError
from nats.js import api
from nats.js.errors import APIError, BadRequestError, NotFoundError

WAIT = 20
ON_THE_WAY = 256


def say(text):
    print(text, flush=True)


async def send(client, subject, payloads):
    """Many are on the way at a time; each is answered for itself."""
    js = client.jetstream(timeout=WAIT)
    room = asyncio.Semaphore(ON_THE_WAY)

    async def one(number, payload):
        try:
            stored = await js.publish(subject, payload, timeout=WAIT, headers={"X-Case": "Kept"})
            say(f"stored {number} {stored.seq}")
        except Exception as error:
            say(f"refused {number} {type(error).__name__}: {error}")
        finally:
            room.release()

    tasks = []
    for number, payload in payloads:
        await room.acquire()
        tasks.append(asyncio.create_task(one(number, payload)))
    await asyncio.gather(*tasks)
    say("published")


async def publish(client, subject, first, count):
    numbers = range(int(first), int(first) + int(count))
    await send(client, subject, ((number, str(number).encode()) for number in numbers))


async def bulk(client, subject, count, size):
    await send(client, subject, ((number, bytes(int(size))) for number in range(int(count))))


async def consume(client, stream, consumer, count, word, subject=""):
    js = client.jetstream(timeout=WAIT)
    pull = await js.pull_subscribe(subject, durable=consumer, stream=stream)
    left = int(count)
    while left:
        for message in await pull.fetch(min(left, 100), timeout=WAIT):
            left -= 1
            known = message.metadata
            say(
                json.dumps(
                    {
                        "subject": message.subject,
                        "data": message.data.decode(),
                        "headers": message.headers,
                        "seq": known.sequence.stream,
                        "count": known.num_delivered,
                    }
                )
            )
            if word == "ack":
                await message.ack_sync(timeout=WAIT)
            elif word != "nothing":
                await getattr(message, word)()
    await client.flush(WAIT)
    say("consumed")


async def look(client, stream):
    state = (await client.jetstream(timeout=WAIT).stream_info(stream)).state
    say(json.dumps({"messages": state.messages, "first": state.first_seq, "last": state.last_seq}))


async def refused(kind, code, asked):
    try:
        await asked
    except kind as error:
        assert error.err_code == code, error
        return
    raise AssertionError(f"{code} was expected")


async def checks(client, stream, subject):
    js = client.jetstream(timeout=WAIT)
    assert (await js.account_info()).streams == 1
    assert await js.find_stream_name_by_subject(subject) == stream
    assert [info.config.name for info in await js.streams_info()] == [stream]
    # A program that makes the stream it needs finds it there.
    await js.add_stream(name=stream, subjects=[subject])
    await refused(BadRequestError, 10058, js.add_stream(name=stream, subjects=["else.>"]))

    # Stored once by its id, and only where it was expected.
    first = await js.publish(subject, b"one", headers={"Nats-Msg-Id": "a"})
    again = await js.publish(subject, b"one", headers={"Nats-Msg-Id": "a"})
    assert (first.seq, first.duplicate or False, again.seq, again.duplicate) == (1, False, 1, True)
    await refused(APIError, 10060, js.publish(subject, b"", stream="other"))
    await refused(APIError, 10071, js.publish(subject, b"", headers={"Nats-Expected-Last-Sequence": "7"}))
    await refused(APIError, 10070, js.publish(subject, b"", headers={"Nats-Expected-Last-Msg-Id": "b"}))
    await refused(APIError, 10025, js.publish(subject, b"", headers={"Nats-Rollup": "all"}))
    expected = {"Nats-Expected-Last-Sequence": "1", "Nats-Expected-Last-Msg-Id": "a", "Nats-Expected-Stream": stream}
    assert (await js.publish(subject, b"two", headers=expected)).seq == 2

    # Read by number and by subject.
    kept = await js.get_msg(stream, 2)
    assert (kept.data, kept.subject, kept.headers["Nats-Expected-Stream"]) == (b"two", subject, stream)
    assert (await js.get_last_msg(stream, subject)).seq == 2
    assert (await js.get_msg(stream, subject=subject, next=True, seq=1)).seq == 1
    await refused(NotFoundError, 10037, js.get_msg(stream, 9))

    # Consumers: from a number, from a time, from now on; each with its own place.
    moment = datetime.datetime.now(datetime.timezone.utc).isoformat()
    for number in range(3, 6):
        await js.publish(subject, str(number).encode())
    policy = api.DeliverPolicy
    configs = {
        "two": (2, api.ConsumerConfig(deliver_policy=policy.BY_START_SEQUENCE, opt_start_seq=2)),
        "since": (3, api.ConsumerConfig(deliver_policy=policy.BY_START_TIME, opt_start_time=moment)),
        "last": (5, api.ConsumerConfig(deliver_policy=policy.LAST)),
        "all": (1, api.ConsumerConfig(deliver_policy=policy.ALL, ack_wait=0.5, max_deliver=2)),
    }
    for name, (start, config) in configs.items():
        pull = await js.pull_subscribe(subject, durable=name, stream=stream, config=config)
        message = (await pull.fetch(1, timeout=WAIT))[0]
        assert message.metadata.sequence.stream == start, (name, message.metadata)
        assert message.metadata.num_pending == 5 - start
        await message.ack_sync()
    new = api.ConsumerConfig(deliver_policy=policy.NEW)
    pull = await js.pull_subscribe(subject, durable="new", stream=stream, config=new)
    try:
        await pull.fetch(1, timeout=0.2)
        raise AssertionError("nothing is new")
    except TimeoutError:
        pass
    waiting = asyncio.create_task(pull.fetch(1, timeout=WAIT, heartbeat=0.2))
    await asyncio.sleep(0)
    await js.publish(subject, b"6")
    assert (await waiting)[0].data == b"6"

    # Given again when it is not acknowledged, so often and no more; or at once, or never.
    pull = await js.pull_subscribe(subject, durable="all", stream=stream)
    some = await pull.fetch(3, timeout=WAIT)
    assert [message.metadata.sequence.stream for message in some] == [2, 3, 4]
    await some[0].nak()
    again = (await pull.fetch(1, timeout=WAIT))[0]
    assert (again.metadata.sequence.stream, again.metadata.num_delivered) == (2, 2)
    await again.ack_sync()
    await some[1].term()
    again = (await pull.fetch(1, timeout=WAIT))[0]
    assert again.metadata.sequence.stream in (4, 5)
    info = await js.consumer_info(stream, "all")
    assert info.ack_floor.stream_seq >= 3 and info.delivered.stream_seq >= 4, info

    names = sorted(info.name for info in await js.consumers_info(stream))
    assert names == sorted([*configs, "new"]), names
    assert await js.delete_consumer(stream, "all")
    await refused(NotFoundError, 10014, js.consumer_info(stream, "all"))
    # Not offered, and said so.
    await refused(BadRequestError, 10025, js.subscribe(subject, durable="push"))
    await refused(BadRequestError, 10025, js.delete_stream(stream))

    assert await js.purge_stream(stream)
    state = (await js.stream_info(stream)).state
    assert (state.messages, state.first_seq, state.last_seq) == (0, 7, 6), state
    say("passed")


async def main(address, what, *arguments):
    client = await nats.connect("nats://" + address, connect_timeout=WAIT)
    await globals()[what](client, *arguments)
    await client.close()


asyncio.run(main(*sys.argv[1:]))
