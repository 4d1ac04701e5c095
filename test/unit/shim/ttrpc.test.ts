import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { loadShimProtos } from '../../../proto/load-shim.ts';
import { BerthError, type ErrorKind } from '../../../src/errors.ts';
import { TtrpcClient } from '../../../src/shim/ttrpc/client.ts';
import { encodeFrame, FrameReader, REQUEST, RESPONSE } from '../../../src/shim/ttrpc/frame.ts';
import { handle, TtrpcServer } from '../../../src/shim/ttrpc/server.ts';
import { eventually } from '../../support/eventually.ts';
import { randomSource } from './random.ts';

const protos = loadShimProtos();
const { Wait, State, Connect } = protos.taskV2;

let dir: string;
let closing: (() => unknown)[];
beforeEach(() => {
  dir = mkdtempSync(path.join(tmpdir(), 'berth-ttrpc-'));
  closing = [];
});
afterEach(async () => {
  for (const close of closing.reverse()) await close();
  rmSync(dir, { recursive: true });
});

const socketPath = () => path.join(dir, 's');

async function serve(methods: Parameters<typeof TtrpcServer.listen>[2]): Promise<TtrpcServer> {
  const server = await TtrpcServer.listen(socketPath(), protos, methods);
  closing.push(() => server.close());
  return server;
}

async function client(): Promise<TtrpcClient> {
  const made = await TtrpcClient.connect(socketPath(), protos, 5_000);
  closing.push(() => made.close());
  return made;
}

/** A server by hand, that does with each connection what the test says. */
async function rawServer(serveOne: (socket: Socket) => void): Promise<Server> {
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    sockets.push(socket);
    socket.on('error', () => {});
    serveOne(socket);
  });
  await new Promise<void>((resolve) => server.listen(socketPath(), resolve));
  closing.push(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return server;
}

async function failure(call: Promise<unknown>): Promise<{ kind: ErrorKind; message: string }> {
  const e = await call.then(
    () => new Error('it did not fail'),
    (e: unknown) => e,
  );
  if (!(e instanceof BerthError)) throw e;
  return { kind: e.kind, message: e.message };
}

describe('a ttrpc client and server', () => {
  it('exchange messages, many at once and out of order', async () => {
    const gates = new Map<string, () => void>();
    await serve({
      [Wait.path]: handle(Wait, async ({ id }) => {
        await new Promise<void>((resolve) => gates.set(id, resolve));
        return { exit_status: Number(id) };
      }),
    });
    const c = await client();
    const calls = Array.from({ length: 50 }, (_, i) => c.call(Wait, { id: String(i) }, {}));
    await eventually(() => expect(gates.size).toBe(50));
    for (const id of [...gates.keys()].reverse()) gates.get(id)?.();
    const answers = await Promise.all(calls);
    expect(answers.map((a) => a.exit_status)).toEqual(Array.from({ length: 50 }, (_, i) => i));
  });

  it('tell errors by their kind', async () => {
    const kinds: ErrorKind[] = [
      'notFound',
      'precondition',
      'unimplemented',
      'internal',
      'alreadyExists',
      'invalid',
    ];
    await serve({
      [State.path]: handle(State, async ({ id }) => {
        throw new BerthError(id as ErrorKind, `this is ${id}`);
      }),
    });
    const c = await client();
    for (const kind of kinds) {
      expect(await failure(c.call(State, { id: kind }, { timeoutMs: 5_000 }))).toEqual({
        kind,
        message: `State: this is ${kind}`,
      });
    }
    expect(await failure(c.call(Connect, {}, { timeoutMs: 5_000 }))).toEqual({
      kind: 'unimplemented',
      message: 'Connect: no such method',
    });
  });

  it('end a call at its deadline, say so to the server, and go on', async () => {
    const received: Buffer[] = [];
    await rawServer((socket) => socket.on('data', (chunk) => received.push(chunk)));
    const c = await client();
    const late = await failure(c.call(State, { id: 'x' }, { timeoutMs: 50 }));
    expect(late).toEqual({ kind: 'deadline', message: 'State: no answer within 0.05 s' });
    const frame = await eventually(() => {
      const [first] = new FrameReader().push(Buffer.concat(received));
      expect(first).toMatchObject({ streamId: 1, type: REQUEST });
      return first;
    });
    expect(protos.request.deserialize(frame?.data ?? Buffer.alloc(0))).toMatchObject({
      service: 'containerd.task.v2.Task',
      method: 'State',
      timeout_nano: '50000000',
    });
    expect(c.isClosed).toBe(false);
  });

  it('end a call when its caller goes', async () => {
    await rawServer(() => {});
    const c = await client();
    const gone = new AbortController();
    const call = c.call(Wait, { id: 'x' }, { signal: gone.signal });
    gone.abort(new Error('the caller has gone'));
    await expect(call).rejects.toThrow('the caller has gone');
    await expect(c.call(Wait, { id: 'x' }, { signal: gone.signal })).rejects.toThrow('the caller has gone');
  });

  it('notice the death of the other side at once, in calls that wait without a deadline too', async () => {
    const sockets: Socket[] = [];
    await rawServer((socket) => sockets.push(socket));
    const c = await client();
    const waiting = [c.call(Wait, { id: 'a' }, {}), c.call(State, { id: 'b' }, { timeoutMs: 60_000 })];
    await eventually(() => expect(sockets).toHaveLength(1));
    const problems = Promise.all(waiting.map(failure));
    sockets[0]?.destroy();
    for (const { kind } of await problems) expect(kind).toBe('unavailable');
    await c.closed;
    expect((await failure(c.call(State, { id: 'b' }, { timeoutMs: 60_000 }))).kind).toBe('unavailable');
  });

  it('find nobody where nobody listens', async () => {
    expect((await failure(TtrpcClient.connect(socketPath(), protos, 1_000))).kind).toBe('unavailable');
  });

  it('ignore answers to nobody and end at nonsense', async () => {
    await rawServer((socket) => {
      const answer = (streamId: number, type: number) =>
        socket.write(encodeFrame({ streamId, type, flags: 0, data: protos.response.serialize({}) }));
      socket.once('data', () => {
        answer(99, RESPONSE);
        answer(1, RESPONSE);
        socket.once('data', () => {
          answer(3, 3);
          socket.once('data', () => socket.write(Buffer.alloc(10, 0xff)));
        });
      });
    });
    const c = await client();
    expect((await c.call(State, { id: 'x' }, { timeoutMs: 5_000 })).pid).toBe(0);
    expect((await failure(c.call(State, { id: 'x' }, { timeoutMs: 5_000 }))).message).toMatch(/type 3/);
    expect((await failure(c.call(State, { id: 'x' }, { timeoutMs: 5_000 }))).kind).toBe('unavailable');
  });

  it('refuse a message that is too large without a word to the other side', async () => {
    await serve({ [State.path]: handle(State, async () => ({ id: 'y'.repeat(5 * 1024 * 1024) })) });
    const c = await client();
    const big = { id: 'x'.repeat(5 * 1024 * 1024) };
    expect((await failure(c.call(State, big, { timeoutMs: 5_000 }))).kind).toBe('exhausted');
    expect((await failure(c.call(State, { id: 'x' }, { timeoutMs: 5_000 }))).kind).toBe('exhausted');
  });
});

describe('a ttrpc server', () => {
  it('has a socket for its user only, in place of what was there', async () => {
    const first = await serve({});
    expect(statSync(socketPath()).mode & 0o777).toBe(0o600);
    await first.close();
    await serve({});
    expect((await failure((await client()).call(State, {}, { timeoutMs: 5_000 }))).kind).toBe(
      'unimplemented',
    );
  });

  it('survives any bytes and still answers', async () => {
    await serve({ [State.path]: handle(State, async ({ id }) => ({ id })) });
    const random = randomSource(0x5eed);
    for (let round = 0; round < 60; round++) {
      const socket = connect({ path: socketPath() });
      socket.on('error', () => {});
      const garbage = random.bytes(random.below(200));
      const frame = encodeFrame({
        streamId: random.below(7),
        type: 1 + random.below(3),
        flags: 0,
        data: garbage,
      });
      socket.end(round % 3 === 0 ? garbage : frame);
      socket.resume();
      await new Promise<void>((resolve) => socket.once('close', () => resolve()));
    }
    const answer = await (await client()).call(State, { id: 'still here' }, { timeoutMs: 5_000 });
    expect(answer.id).toBe('still here');
  });

  it('answers nonsense in a right frame with an error', async () => {
    await serve({ [State.path]: handle(State, async ({ id }) => ({ id })) });
    const socket = connect({ path: socketPath() });
    closing.push(() => socket.destroy());
    const reader = new FrameReader();
    const answers: number[] = [];
    socket.on('data', (chunk: Buffer) => {
      for (const { data } of reader.push(chunk)) {
        answers.push(protos.response.deserialize(data).status?.code ?? 0);
      }
    });
    const send = (streamId: number, data: Buffer) =>
      socket.write(encodeFrame({ streamId, type: REQUEST, flags: 0, data }));
    const request = {
      service: 'containerd.task.v2.Task',
      method: 'State',
      payload: Buffer.from([0xff, 0xff]),
    };
    send(1, Buffer.from([0xff]));
    send(2, protos.request.serialize({ ...request, payload: Buffer.alloc(0) }));
    send(3, protos.request.serialize(request));
    send(5, protos.request.serialize({ ...request, method: '__proto__' }));
    await eventually(() => expect(answers.sort()).toEqual([12, 3, 3, 3]));
  });

  it('does not read a client that asks for more than it can do', async () => {
    let running = 0;
    const gate = Promise.withResolvers<void>();
    await serve({
      [State.path]: handle(State, async () => {
        running++;
        await gate.promise;
        return {};
      }),
    });
    const c = await client();
    // Large, so that they do not all come in one piece.
    const calls = Array.from({ length: 300 }, () =>
      c.call(State, { id: 'x'.repeat(8192) }, { timeoutMs: 20_000 }),
    );
    await eventually(() => expect(running).toBeGreaterThanOrEqual(64));
    expect(running).toBeLessThan(100);
    gate.resolve();
    await Promise.all(calls);
    expect(running).toBe(300);
  });
});
