import { type Duplex, duplexPair } from 'node:stream';
import { afterEach, expect, test } from 'vitest';
import { AgentClient } from '../../../src/vm/agent-client/client.ts';
import { MuxDuplex } from '../../../src/vm/channel/mux-duplex.ts';
import { runMux } from '../../../src/vm/channel/run-mux.ts';
import type { Mux } from '../../../src/vm/protocol/mux.ts';
import { randomSource } from '../shim/random.ts';
import { HELLO } from './hello.ts';

interface Guest {
  transport: Duplex;
  mux: Mux;
}

const clients: AgentClient[] = [];
afterEach(() => {
  for (const client of clients.splice(0)) client.close();
});

/** A client and the guest's end, which answers hello and gives all other calls to `answer`. */
async function connected(
  answer: (guest: Guest, id: number, message: { method: string; params: unknown }) => void,
  hello: unknown = { result: HELLO },
) {
  const [host, transport] = duplexPair();
  const mux: Mux = runMux(
    transport,
    {
      request: (id, message) => {
        const call = message as { method: string; params: unknown };
        if (call.method === 'hello') mux.respond(id, hello);
        else answer({ transport, mux }, id, call);
      },
    },
    () => {},
  );
  const client = await AgentClient.connect(host, AbortSignal.timeout(10_000));
  clients.push(client);
  return { client, guest: { transport, mux } };
}

test('calls get their own answers, in whatever order these come', async () => {
  const waiting: (() => void)[] = [];
  const { client } = await connected(({ mux }, id, { params }) => {
    const { id: container } = params as { id: string };
    waiting.unshift(() => mux.respond(id, { result: { pids: [Number(container)] } }));
    if (waiting.length === 3) for (const answer of waiting) answer();
  });
  expect(client.hello).toEqual(HELLO);
  const calls = ['1', '2', '3'].map((id) => client.call('pids', { id }));
  expect(await Promise.all(calls)).toEqual([{ pids: [1] }, { pids: [2] }, { pids: [3] }]);
});

test("an error keeps the agent's kind; one of no known kind is internal", async () => {
  const { client } = await connected(({ mux }, id, { params }) => {
    const { id: kind } = params as { id: string };
    mux.respond(id, { error: { kind, message: 'no such container' } });
  });
  await expect(client.call('start', { id: 'notFound' })).rejects.toMatchObject({
    kind: 'notFound',
    message: 'guest agent: start: no such container',
  });
  await expect(client.call('start', { id: 'constructor' })).rejects.toMatchObject({ kind: 'internal' });
});

test.each([
  ['a result of another form', { result: { pids: 'all' } }],
  ['no result', {}],
  ['a list', []],
])('%s is refused', async (_, message) => {
  const { client } = await connected(({ mux }, id) => mux.respond(id, message));
  await expect(client.call('pids', { id: 'a' })).rejects.toMatchObject({ kind: 'internal' });
});

test('an agent of another version is refused with what to do', async () => {
  await expect(connected(() => {}, { result: { ...HELLO, version: 99 } })).rejects.toThrow(/build-guest/);
});

test('the end of the connection fails calls and streams at once, and later ones', async () => {
  const { client } = await connected(({ transport }) => transport.destroy());
  const stream = client.openStream();
  const broken = new Promise((resolve) => stream.once('error', resolve));
  await expect(client.call('pids', { id: 'a' })).rejects.toMatchObject({ kind: 'unavailable' });
  expect(await broken).toMatchObject({ kind: 'unavailable' });
  expect(await client.closed).toMatchObject({ kind: 'unavailable' });
  await expect(client.call('pids', { id: 'a' })).rejects.toMatchObject({ kind: 'unavailable' });
  expect(() => client.openStream()).toThrow();
});

test('a call that was given up leaves the connection as it was', async () => {
  const { client } = await connected(({ mux }, id, { method }) => {
    if (method === 'pids') mux.respond(id, { result: { pids: [] } });
  });
  const abort = new AbortController();
  const call = client.call('start', { id: 'a' }, abort.signal);
  abort.abort(new Error('enough'));
  await expect(call).rejects.toThrow('enough');
  expect(await client.call('pids', { id: 'a' })).toEqual({ pids: [] });
});

test('close ends the connection without a reason', async () => {
  const { client } = await connected(() => {});
  client.close();
  expect(await client.closed).toBeUndefined();
});

test('events reach listeners; one of no known form ends the connection', async () => {
  const { client, guest } = await connected(() => {});
  const seen: unknown[] = [];
  const stop = client.onEvent((event) => seen.push(event));
  guest.mux.tell({ event: 'oom', id: 'a' });
  await expect.poll(() => seen).toEqual([{ event: 'oom', id: 'a' }]);
  stop();
  guest.mux.tell({ event: 'oom', id: 'b' });
  guest.mux.tell({ event: 'exit', id: 'a', code: '0' });
  expect(await client.closed).toBeInstanceOf(Error);
  expect(seen).toHaveLength(1);
});

test('a stream carries all bytes both ways, and waits for a slow reader', async () => {
  const { client, guest } = await connected(({ mux }, id, { params }) => {
    const { streamId } = params as { streamId: number };
    const stream = new MuxDuplex(mux, streamId, { halfOpen: true });
    mux.respond(id, { result: {} });
    stream.pipe(stream);
  });
  const stream = client.openStream({ halfOpen: true });
  await client.call('dial', { port: 80, streamId: stream.id });
  const all = randomSource(5).bytes(3_000_000);
  stream.end(all);
  const got: Buffer[] = [];
  for await (const chunk of stream) got.push(chunk);
  expect(Buffer.concat(got).equals(all)).toBe(true);
  // Both sides have let go of the id.
  guest.mux.open(stream.id, { data() {}, end() {}, drain() {}, aborted() {} });
});

test('destroying a stream ends it at the other side', async () => {
  let far: MuxDuplex | undefined;
  const { client } = await connected(({ mux }, id, { params }) => {
    far = new MuxDuplex(mux, (params as { streamId: number }).streamId);
    mux.respond(id, { result: {} });
  });
  const stream = client.openStream();
  await client.call('dial', { port: 80, streamId: stream.id });
  stream.destroy();
  await expect.poll(() => far?.destroyed).toBe(true);
});

test('any bytes of the guest end in an orderly end of the connection', async () => {
  for (let seed = 1; seed < 60; seed++) {
    const { below, bytes } = randomSource(seed);
    const { client, guest } = await connected(() => {});
    const call = client.call('pids', { id: 'a' });
    call.catch(() => {});
    for (let i = 0; i < 10; i++) {
      const payload = bytes(below(20));
      guest.transport.write(
        Buffer.concat([Buffer.from([0, 0, 0, payload.length, below(8), 0, 0, 0, below(4)]), payload]),
      );
    }
    guest.transport.destroy();
    expect(await client.closed).toBeInstanceOf(Error);
    await expect(call).rejects.toBeInstanceOf(Error);
  }
});
