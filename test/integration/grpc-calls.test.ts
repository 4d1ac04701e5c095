import { once } from 'node:events';
import { existsSync } from 'node:fs';
import http2 from 'node:http2';
import net from 'node:net';
import { credentials, Client as GrpcClient, Metadata, type ServiceError, status } from '@grpc/grpc-js';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { messagePrefix } from '../../cri/grpc/message-reader.ts';
import { SERVICE, ToyServer } from '../support/grpc-server.ts';
import { until } from '../support/pods.ts';

let toy: ToyServer;
let client: GrpcClient;
const undo: (() => void)[] = [];

beforeAll(async () => {
  toy = await ToyServer.start();
  client = connect(toy);
});
afterEach(() => {
  for (const step of undo.splice(0).reverse()) step();
});
afterAll(async () => {
  client.close();
  await toy.close();
});

const MEBI = 1 << 20;
const text = (message: string) => Buffer.from(message);

function connect({ socket }: ToyServer): GrpcClient {
  return new GrpcClient(`unix:${socket}`, credentials.createInsecure(), {
    'grpc.max_receive_message_length': -1,
    'grpc.max_send_message_length': -1,
  });
}

/** A unary call. @throws ServiceError */
function call(
  method: string,
  request: string,
  options: { deadline?: number; from?: GrpcClient; signal?: AbortSignal } = {},
): Promise<string> {
  const { deadline, from = client, signal } = options;
  return new Promise((resolve, reject) => {
    const pending = from.makeUnaryRequest(
      `${SERVICE}/${method}`,
      text,
      String,
      request,
      new Metadata(),
      deadline === undefined ? {} : { deadline },
      (e: ServiceError | null, answer) => (e === null && answer !== undefined ? resolve(answer) : reject(e)),
    );
    signal?.addEventListener('abort', () => pending.cancel());
  });
}

describe('grpc-js as client', () => {
  it('gets what it sent, whatever the size', async () => {
    for (const size of [0, 1, 16_379, 16_384, 65_535, MEBI, 16 * MEBI]) {
      const sent = 'x'.repeat(size);
      expect((await call('Echo', sent)) === sent).toBe(true);
    }
  });

  it('gets many answers at a time over one connection', async () => {
    const all = Array.from({ length: 500 }, (_, i) => `${i} ${'y'.repeat(i * 40)}`);
    expect(await Promise.all(all.map((sent) => call('Echo', sent)))).toEqual(all);
  });

  it.each(['pod "a": not found', 'Größe 100 %\n€', '€'.repeat(7000), ''])(
    'gets code and message of an error: %s',
    async (message) => {
      const expected = { code: status.NOT_FOUND, details: message };
      await expect(call('Fail', message)).rejects.toMatchObject(expected);
      await expect(call('Fail', `late${message}`)).rejects.toMatchObject({
        ...expected,
        details: `late${message}`,
      });
    },
  );

  it('is told by name of a method that is not there', async () => {
    await expect(call('Nothing', '')).rejects.toMatchObject({
      code: status.UNIMPLEMENTED,
      details: `unknown method ${SERVICE}/Nothing`,
    });
  });

  it('is refused a request, and an answer, beyond 16 MiB', async () => {
    await expect(call('Echo', 'x'.repeat(16 * MEBI + 1))).rejects.toMatchObject({
      code: status.RESOURCE_EXHAUSTED,
      details: expect.stringContaining('16777216'),
    });
    await expect(call('Repeat', `${16 * MEBI + 1} x`)).rejects.toMatchObject({
      code: status.RESOURCE_EXHAUSTED,
    });
    expect(await call('Echo', 'after it')).toBe('after it');
  });

  it('is told of a request that cannot be read', async () => {
    const answer = new Promise((_, reject) => {
      client.makeUnaryRequest(`${SERVICE}/Echo`, () => Buffer.from([0xff]), String, '', reject);
    });
    await expect(answer).rejects.toMatchObject({
      code: status.INTERNAL,
      details: expect.stringContaining('no text begins so'),
    });
  });

  it('has its deadline told to the handler', async () => {
    const before = toy.hanging.length;
    const answer = call('Hang', '', { deadline: Date.now() + 50 });
    await expect(answer).rejects.toMatchObject({ code: status.DEADLINE_EXCEEDED });
    await until('the deadline', () => toy.hanging[before]?.aborted);
    // Whichever was first: the server's timer, or the client, which resets the stream.
    expect(toy.hanging[before]?.reason.kind).toMatch(/^(deadline|cancelled)$/);
  });

  it('has its cancel told to the handler', async () => {
    const before = toy.hanging.length;
    const cancel = new AbortController();
    const answer = call('Hang', '', { signal: cancel.signal });
    await until('the call', () => toy.hanging[before]);
    cancel.abort();
    await expect(answer).rejects.toMatchObject({ code: status.CANCELLED });
    await until('the cancel', () => toy.hanging[before]?.aborted);
    expect(toy.hanging[before]?.reason.kind).toBe('cancelled');
  });

  it('has the end of its connection told to the handler', async () => {
    const before = toy.hanging.length;
    const socket = net.connect(toy.socket);
    const session = http2.connect('http://localhost', { createConnection: () => socket });
    session.on('error', () => {});
    request(session, 'Hang').on('error', () => {});
    await until('the call', () => toy.hanging[before]);
    socket.destroy();
    await until('the cancel', () => toy.hanging[before]?.aborted);
    expect(toy.hanging[before]?.reason.kind).toBe('cancelled');
  });

  it('reads a stream', async () => {
    const stream = client.makeServerStreamRequest(`${SERVICE}/Count`, text, String, '200 20000');
    const got: string[] = [];
    for await (const message of stream) got.push(message);
    expect(got.map((message) => message.trim())).toEqual(Array.from({ length: 200 }, (_, i) => `${i}`));
  });

  it('sends a stream', async () => {
    const answer = new Promise((resolve, reject) => {
      const sum = client.makeClientStreamRequest(`${SERVICE}/Sum`, text, String, (e, total) =>
        e === null ? resolve(total) : reject(e),
      );
      for (let i = 0; i < 40; i++) sum.write('z'.repeat(300_000));
      sum.end();
    });
    expect(await answer).toBe('12000000');
  });
});

/** A call with node:http2, which shows headers and windows. */
function request(
  session: http2.ClientHttp2Session,
  method: string,
  headers: http2.OutgoingHttpHeaders = {},
  body: Buffer = messagePrefix(0),
) {
  const stream = session.request({
    ':method': 'POST',
    ':path': `${SERVICE}/${method}`,
    'content-type': 'application/grpc',
    te: 'trailers',
    ...headers,
  });
  stream.end(body);
  return stream;
}

function open(
  settings: http2.Settings = {},
  socket: net.Socket = net.connect(toy.socket),
): http2.ClientHttp2Session {
  const session = http2.connect('http://localhost', { createConnection: () => socket, settings });
  undo.push(() => session.destroy());
  return session;
}

async function readAll(stream: http2.ClientHttp2Stream) {
  let headers: http2.IncomingHttpHeaders = {};
  let trailers: http2.IncomingHttpHeaders = {};
  stream.on('response', (got) => {
    headers = got;
  });
  stream.on('trailers', (got) => {
    trailers = got;
  });
  const pieces: Buffer[] = [];
  stream.on('data', (bytes: Buffer) => pieces.push(bytes));
  await once(stream, 'close');
  return { headers, trailers, body: Buffer.concat(pieces), reset: stream.rstCode };
}

const message = (body: string) => Buffer.concat([messagePrefix(body.length), text(body)]);

describe('on the wire', () => {
  it('an answer has headers, one message and a status', async () => {
    expect(await readAll(request(open(), 'Echo', {}, message('hello')))).toMatchObject({
      headers: {
        ':status': 200,
        'content-type': 'application/grpc',
        'grpc-accept-encoding': 'identity',
      },
      trailers: { 'grpc-status': '0' },
      body: message('hello'),
      reset: 0,
    });
  });

  it('an error without an answer has headers only', async () => {
    const { headers, trailers, body } = await readAll(request(open(), 'Fail', {}, message('50 %')));
    expect(headers).toMatchObject({ ':status': 200, 'grpc-status': '5', 'grpc-message': '50 %25' });
    expect([trailers['grpc-status'], body.length]).toEqual([undefined, 0]);
  });

  it.each<[string, http2.OutgoingHttpHeaders, object]>([
    ['PUT', { ':method': 'PUT' }, { ':status': 405 }],
    ['another content type', { 'content-type': 'text/plain' }, { ':status': 415 }],
    ['a timeout of no unit', { 'grpc-timeout': '5x' }, { ':status': 200, 'grpc-status': '13' }],
    ['a compressed request', { 'grpc-encoding': 'gzip' }, { 'grpc-status': '12' }],
  ])('%s is refused', async (_what, more, expected) => {
    const body = 'grpc-encoding' in more ? Buffer.from([1, 0, 0, 0, 0]) : messagePrefix(0);
    const session = open();
    expect((await readAll(request(session, 'Echo', more, body))).headers).toMatchObject(expected);
    expect((await readAll(request(session, 'Echo'))).trailers['grpc-status']).toBe('0');
  });

  it('a deadline is told as a status when the client waits for it', async () => {
    const { headers } = await readAll(request(open(), 'Hang', { 'grpc-timeout': '20m' }));
    expect(headers).toMatchObject({ 'grpc-status': '4' });
    expect(toy.hanging.at(-1)?.reason.kind).toBe('deadline');
  });

  it('a deadline of a month is none, and no timer that fires at once', async () => {
    const stream = request(open(), 'Echo', { 'grpc-timeout': '744H' });
    expect((await readAll(stream)).trailers['grpc-status']).toBe('0');
  });

  it.each<[string, Buffer, string]>([
    ['no message', Buffer.alloc(0), '12'],
    ['two messages', Buffer.concat([message('a'), message('b')]), '12'],
    ['half a message', message('half').subarray(0, 7), '13'],
  ])('%s in place of one is refused', async (_what, body, code) => {
    expect((await readAll(request(open(), 'Echo', {}, body))).headers['grpc-status']).toBe(code);
  });

  it('a refusal before the end of the request stops its client', async () => {
    const stream = open().request({
      ':method': 'POST',
      ':path': `${SERVICE}/Echo`,
      'content-type': 'application/grpc',
    });
    // A length beyond the limit, and never an end.
    stream.write(Buffer.from([0, 0xff, 0, 0, 0]));
    expect((await readAll(stream)).headers['grpc-status']).toBe('8');
  });

  it('headers go to a client whose decoder has no table', async () => {
    const session = open({ headerTableSize: 0 });
    for (let i = 0; i < 3; i++)
      expect((await readAll(request(session, 'Echo'))).trailers['grpc-status']).toBe('0');
  });

  it.each([0, 100])('an answer waits for a window of %d bytes to open', async (initialWindowSize) => {
    const session = open({ initialWindowSize });
    const answer = readAll(request(session, 'Repeat', {}, message('50000 w')));
    if (initialWindowSize === 0) session.settings({ initialWindowSize: 70_000 });
    expect((await answer).body.length).toBe(50_005);
  });

  it('a stream that nobody reads waits, and others go on', async () => {
    const before = toy.counted;
    const session = open();
    const slow = request(session, 'Count', {}, message('1000 10000'));
    await once(slow, 'response');
    const other = open();
    for (let i = 0; i < 20; i++) await readAll(request(other, 'Echo'));
    expect(toy.counted - before).toBeLessThan(100);
    let got = 0;
    slow.on('data', (bytes: Buffer) => (got += bytes.length));
    await once(slow, 'end');
    expect(got).toBe(1000 * 10_005);
  });

  it('requests that nobody takes wait with their client', async () => {
    const gate = Promise.withResolvers<void>();
    toy.gate = gate.promise;
    const socket = net.connect(toy.socket);
    const stream = open({}, socket).request({
      ':method': 'POST',
      ':path': `${SERVICE}/Sum`,
      'content-type': 'application/grpc',
    });
    for (let i = 0; i < 50; i++) stream.write(message('p'.repeat(100_000)));
    stream.end();
    await until('the window is full', () => socket.bytesWritten > MEBI);
    await readAll(request(open(), 'Echo'));
    expect(socket.bytesWritten).toBeLessThan(2 * MEBI);
    gate.resolve();
    expect(String((await readAll(stream)).body.subarray(5))).toBe('5000000');
  });
});

describe('close', () => {
  it('lets calls in flight end, takes no more, and removes the socket', async () => {
    const own = await ToyServer.start();
    const from = connect(own);
    undo.push(() => from.close());
    const gate = Promise.withResolvers<void>();
    own.gate = gate.promise;
    const sum = new Promise((resolve, reject) => {
      const stream = from.makeClientStreamRequest(`${SERVICE}/Sum`, text, String, (e, total) =>
        e === null ? resolve(total) : reject(e),
      );
      stream.end('four');
    });
    await call('Echo', '', { from });
    const closed = own.server.close(60_000);
    await expect(call('Echo', '', { from, deadline: Date.now() + 10_000 })).rejects.toMatchObject({
      code: status.UNAVAILABLE,
    });
    gate.resolve();
    expect(await sum).toBe('4');
    await closed;
    expect(existsSync(own.socket)).toBe(false);
    await own.close();
  });

  it('ends the calls that do not end by themselves', async () => {
    const own = await ToyServer.start();
    const from = connect(own);
    undo.push(() => from.close());
    const answer = call('Hang', '', { from });
    await until('the call', () => own.hanging[0]);
    await Promise.all([
      own.server.close(50),
      expect(answer).rejects.toMatchObject({ code: status.UNAVAILABLE }),
    ]);
    await until('the handler knows', () => own.hanging[0]?.aborted);
    await own.close();
  });
});
