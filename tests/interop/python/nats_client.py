"""The official NATS client for Python (nats-py), unmodified, against a server at an address.

    nats_client.py ADDRESS sub SUBJECT [QUEUE]       prints each message as JSON, from "subscribed" on
    nats_client.py ADDRESS pub SUBJECT FROM COUNT    publishes so many numbers, with headers
    nats_client.py ADDRESS big SUBJECT BYTES         publishes one large message, and small ones to SUBJECT.small
    nats_client.py ADDRESS answer SUBJECT            answers questions, from "subscribed" on
    nats_client.py ADDRESS ask SUBJECT TEXT          prints the answer, or "nobody"
    nats_client.py ADDRESS limits                    checks what one client alone can see
    nats_client.py ADDRESS key SEED                  prints the public key of a seed, without connecting
    nats_client.py ADDRESS operator DIRECTORY        writes a server's configuration with an operator, server.conf,
                                                     and the credentials file of a user, user.creds; without connecting
    nats_client.py ADDRESS enter token|nkey SECRET [SUBJECT]
                                                     prints the subject where it is let in and hears itself, or the refusal
"""

import asyncio
import hashlib
import json
import sys

import nats
from nats.errors import NoRespondersError

WAIT = 20


def say(text):
    print(text, flush=True)


async def sub(client, subject, queue=""):
    async def shown(message):
        data = message.data
        shown = data.decode() if len(data) < 100 else hashlib.sha256(data).hexdigest()
        say(json.dumps({"subject": message.subject, "data": shown, "headers": message.headers, "bytes": len(data)}))

    await client.subscribe(subject, queue=queue, cb=shown, pending_bytes_limit=-1, pending_msgs_limit=-1)
    await client.flush(WAIT)
    say("subscribed")
    await asyncio.Event().wait()


async def pub(client, subject, first, count):
    for number in range(int(first), int(first) + int(count)):
        await client.publish(subject, str(number).encode(), headers={"X-Case": "Kept", "x-case": "too"})
    await client.flush(WAIT)
    say("published")


async def big(client, subject, size):
    data = bytes(range(256)) * (int(size) // 256)
    await client.publish(subject, data)
    for number in range(10):
        await client.publish(subject + ".small", str(number).encode())
    await client.flush(WAIT)
    say(hashlib.sha256(data).hexdigest())


async def answer(client, subject):
    async def answered(message):
        await message.respond(b"you said " + message.data)

    await client.subscribe(subject, queue="answers", cb=answered)
    await client.flush(WAIT)
    say("subscribed")
    await asyncio.Event().wait()


async def ask(client, subject, text):
    try:
        say((await client.request(subject, text.encode(), timeout=WAIT)).data.decode())
    except NoRespondersError:
        say("nobody")


async def limits(client):
    """Wildcards, a limit of messages, unsubscribing, queue groups."""
    every = await client.subscribe("lim.>")
    star = await client.subscribe("lim.*.b")
    await client.publish("lim.a.b", b"1")
    await client.publish("lim.a", b"2")
    assert (await star.next_msg(WAIT)).data == b"1"
    assert [(await every.next_msg(WAIT)).data for _ in range(2)] == [b"1", b"2"]
    assert star.pending_msgs == 0

    two = await client.subscribe("lim.two")
    await two.unsubscribe(limit=2)
    await client.flush(WAIT)
    for number in range(4):
        await client.publish("lim.two", str(number).encode())
    await client.flush(WAIT)
    assert [(await every.next_msg(WAIT)).data for _ in range(4)] == [b"0", b"1", b"2", b"3"]
    assert two.delivered == 2 or two.pending_msgs == 2, (two.delivered, two.pending_msgs)

    group = [await client.subscribe("lim.q", queue="workers") for _ in range(3)]
    for number in range(30):
        await client.publish("lim.q", str(number).encode())
    # A flush alone is none: this client sends its ping before what it has gathered.
    for _ in range(30):
        await every.next_msg(WAIT)
    await client.flush(WAIT)
    shares = [member.pending_msgs for member in group]
    assert sum(shares) == 30 and all(shares), shares

    await every.unsubscribe()
    await client.flush(WAIT)
    await client.publish("lim.a", b"after")
    await client.flush(WAIT)
    assert every.pending_msgs == 0, every.pending_msgs

    say("passed")


def key(seed):
    import nkeys

    say(nkeys.from_seed(bytearray(seed.encode())).public_key.decode())


def operator(directory):
    """What the tool `nsc` makes: an operator, an account that it vouches for, and a user of that account."""
    import base64

    import nkeys

    def made(prefix, byte):
        return nkeys.from_seed(bytearray(nkeys.encode_seed(bytes([byte] * 32), prefix)))

    def text(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    def vouched(by, whom, name, nats):
        claims = {"iat": 1700000000, "iss": by.public_key.decode(), "name": name, "sub": whom.public_key.decode()}
        claims["jti"] = hashlib.sha256(json.dumps(claims).encode()).hexdigest()
        claims["nats"] = nats | {"version": 2}
        parts = [{"typ": "JWT", "alg": "ed25519-nkey"}, claims]
        signed = ".".join(text(json.dumps(part).encode()) for part in parts)
        return signed + "." + text(by.sign(signed.encode()))

    of_all, account, user = (
        made(prefix, byte)
        for prefix, byte in [
            (nkeys.PREFIX_BYTE_OPERATOR, 1),
            (nkeys.PREFIX_BYTE_ACCOUNT, 2),
            (nkeys.PREFIX_BYTE_USER, 3),
        ]
    )
    unlimited = dict.fromkeys(["subs", "data", "payload", "imports", "exports", "conn", "leaf"], -1)
    account_nats = {"type": "account", "limits": unlimited | {"wildcards": True}}
    user_nats = {"type": "user", "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1}
    with open(directory + "/server.conf", "w") as conf:
        conf.write("operator: " + vouched(of_all, of_all, "all", {"type": "operator"}) + "\nresolver: MEMORY\n")
        jwt = vouched(of_all, account, "account", account_nats)
        conf.write("resolver_preload: { %s: %s }\n" % (account.public_key.decode(), jwt))
    with open(directory + "/user.creds", "w") as creds:
        jwt = vouched(account, user, "user", user_nats)
        creds.write("-----BEGIN NATS USER JWT-----\n%s\n------END NATS USER JWT------\n\n" % jwt)
        seed = user.seed.decode()
        creds.write("-----BEGIN USER NKEY SEED-----\n%s\n------END USER NKEY SEED------\n" % seed)
    say("written")


async def enter(address, how, secret, subject="entered"):
    """Verbose and pedantic besides: every command is answered, and this client waits for the answers."""
    given = {"token": secret} if how == "token" else {"nkeys_seed_str": secret}
    try:
        client = await nats.connect(
            "nats://" + address, connect_timeout=WAIT, allow_reconnect=False, verbose=True, pedantic=True, **given
        )
    except nats.errors.Error as refusal:
        say(f"refused: {refusal}")
        return
    heard = await client.subscribe(subject)
    await client.publish(subject, b"myself")
    say((await heard.next_msg(WAIT)).subject)
    await client.close()


async def main(address, what, *arguments):
    if what == "key":
        return key(*arguments)
    if what == "operator":
        return operator(*arguments)
    if what == "enter":
        return await enter(address, *arguments)
    client = await nats.connect("nats://" + address, connect_timeout=WAIT)
    await globals()[what](client, *arguments)
    await client.close()


asyncio.run(main(*sys.argv[1:]))
