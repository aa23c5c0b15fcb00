// A grpc-js client of `interop.lab.Probe`. Usage: client.js HOST:PORT CASE... ; `all` runs every case; --direct leaves
// out what only a network answers. Prints one JSON object, exit code 1 when a case failed.
'use strict';

const { createHash, randomUUID } = require('crypto');
const assert = require('assert');
const grpc = require('@grpc/grpc-js');

const PREFIX = '/interop.lab.Probe/';
const MESSAGE_LIMIT = 4 * 1024 * 1024;
const ALL_BYTES = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
const same = (buffer) => buffer;
const within = (seconds = 20) => ({ deadline: Date.now() + seconds * 1000 });

const [address, ...rest] = process.argv.slice(2);
const direct = rest.includes('--direct');
const client = new grpc.Client(address, grpc.credentials.createInsecure(), {
  'grpc.max_receive_message_length': -1,
  'grpc.max_send_message_length': -1,
});

// One unary call: message, metadata of both kinds, or the error with its code and trailers.
function unary(method, body, options = within(), metadata = new grpc.Metadata()) {
  return new Promise((resolve) => {
    const seen = {};
    const path = method.startsWith('/') ? method : PREFIX + method;
    const call = client.makeUnaryRequest(path, same, same, Buffer.from(body), metadata, options, (error, message) => {
      seen.error = error;
      seen.message = message;
      if (error) resolve(seen);
    });
    call.on('metadata', (m) => { seen.initial = m; });
    call.on('status', (s) => { seen.status = s; seen.trailing = s.metadata; resolve(seen); });
  });
}

async function answer(method, body, options) {
  const { error, message } = await unary(method, body, options);
  if (error) throw error;
  return message;
}

function collect(stream) {
  return new Promise((resolve, reject) => {
    const messages = [];
    stream.on('data', (m) => messages.push(m));
    stream.on('error', reject);
    stream.on('end', () => resolve(messages));
  });
}

const cases = {
  async unary() {
    assert.deepStrictEqual(await answer('Echo', '\0hello'), Buffer.from('\0hello'));
    assert.deepStrictEqual(await answer('Echo', ''), Buffer.alloc(0));
  },
  async parallel() {
    const got = await Promise.all(Array.from({ length: 200 }, (_, i) => answer('Echo', String(i))));
    got.forEach((m, i) => assert.strictEqual(m.toString(), String(i)));
  },
  async server_stream() {
    const request = Buffer.from(JSON.stringify({ count: 500, size: 1000 }));
    const got = await collect(client.makeServerStreamRequest(PREFIX + 'ServerStream', same, same, request, within()));
    assert.deepStrictEqual(got.map((m) => m.readUInt32BE(0)), Array.from({ length: 500 }, (_, i) => i));
    assert(got.every((m) => m.length === 1004));
  },
  async client_stream() {
    const digest = createHash('sha256');
    const got = await new Promise((resolve, reject) => {
      const call = client.makeClientStreamRequest(PREFIX + 'ClientStream', same, same, within(), (error, message) =>
        error ? reject(error) : resolve(JSON.parse(message)));
      for (let i = 0; i < 500; i += 1) {
        const message = Buffer.alloc(i, i);
        digest.update(message);
        call.write(message);
      }
      call.end();
    });
    assert.deepStrictEqual(got, { count: 500, sha256: digest.digest('hex') });
  },
  async bidi() {
    const call = client.makeBidiStreamRequest(PREFIX + 'Bidi', same, same, within());
    const answers = collect(call);
    for (let i = 0; i < 2000; i += 1) call.write(Buffer.from(String(i)));
    call.end();
    assert.deepStrictEqual((await answers).map(Number), Array.from({ length: 2000 }, (_, i) => i));
  },
  async ping_pong() {
    const call = client.makeBidiStreamRequest(PREFIX + 'Bidi', same, same, within());
    const answers = call[Symbol.asyncIterator]();
    for (let i = 0; i < 50; i += 1) {
      call.write(Buffer.from(`ball ${i}`));
      assert.strictEqual(String((await answers.next()).value), `ball ${i}`);
    }
    call.end();
    assert.strictEqual((await answers.next()).done, true);
  },
  async big() {
    const body = Buffer.alloc(MESSAGE_LIMIT, ALL_BYTES);
    assert((await answer('Echo', body)).equals(body));
  },
  async too_big() {
    const { error } = await unary('Echo', Buffer.alloc(MESSAGE_LIMIT + 1));
    assert.strictEqual(error && error.code, grpc.status.RESOURCE_EXHAUSTED, String(error));
    await cases.unary();
  },
  async deadline() {
    const id = randomUUID();
    const { error } = await unary('Hold', id, within(0.5));
    assert.strictEqual(error && error.code, grpc.status.DEADLINE_EXCEEDED, String(error));
    assert.strictEqual((await answer('Ended', id)).toString(), 'ended');
  },
  async cancel() {
    const id = randomUUID();
    const call = client.makeServerStreamRequest(PREFIX + 'HoldStream', same, same, Buffer.from(id), within());
    await new Promise((resolve, reject) => { call.once('data', resolve); call.once('error', reject); });
    const ended = new Promise((resolve) => { call.removeAllListeners('error'); call.once('error', resolve); });
    call.cancel();
    call.resume();
    assert.strictEqual((await ended).code, grpc.status.CANCELLED);
    assert.strictEqual((await answer('Ended', id)).toString(), 'ended');
  },
  async metadata() {
    const sent = new grpc.Metadata();
    sent.add('echo-text', 'a, b=c');
    sent.add('echo-data-bin', ALL_BYTES);
    const { error, initial, trailing } = await unary('Echo', 'm', within(), sent);
    if (error) throw error;
    assert.deepStrictEqual(initial.get('initial-echo-text'), ['a, b=c']);
    assert.deepStrictEqual(initial.get('initial-echo-data-bin'), [ALL_BYTES]);
    assert.deepStrictEqual(trailing.get('trailing-echo-text'), ['a, b=c']);
    assert.deepStrictEqual(trailing.get('trailing-echo-data-bin'), [ALL_BYTES]);
  },
  async details() {
    for (const code of [3, 5, 7, 9, 13, 14, 16]) {
      const { error } = await unary('Fail', String(code));
      assert.strictEqual(error && error.code, code, String(error));
      assert.strictEqual(error.details, 'asked for \u00fcber %25\n');
      assert.deepStrictEqual(error.metadata.get('grpc-status-details-bin'), [ALL_BYTES]);
      assert.deepStrictEqual(error.metadata.get('why'), ['asked']);
      assert.deepStrictEqual(error.metadata.get('micro-error'), []);
    }
  },
  async no_method() {
    const { error } = await unary('NoSuchMethod', '');
    assert.strictEqual(error && error.code, grpc.status.UNIMPLEMENTED, String(error));
    assert.deepStrictEqual(error.metadata.get('micro-error'), []);
  },
  async no_service() {
    const { error } = await unary('/interop.nobody.Probe/Echo', '');
    assert([grpc.status.UNIMPLEMENTED, grpc.status.NOT_FOUND].includes(error && error.code), String(error));
    assert.strictEqual(error.metadata.get('micro-error').length, 1);
  },
};

async function main() {
  let names = rest.filter((name) => name !== '--direct');
  if (names.join() === 'all') names = Object.keys(cases).filter((name) => !(direct && name === 'no_service'));
  const report = {};
  for (const name of names) {
    try {
      await cases[name]();
      report[name] = 'ok';
    } catch (error) {
      report[name] = `${error.name} ${error.message}`.slice(0, 300);
    }
  }
  client.close();
  console.log(JSON.stringify(report));
  process.exitCode = Object.values(report).some((v) => v !== 'ok') ? 1 : 0;
}

main();
