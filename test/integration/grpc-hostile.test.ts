import { once } from 'node:events';
import net from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { encodeHeaders } from '../../cri/grpc/hpack/encoder.ts';
import type { HeaderField } from '../../cri/grpc/hpack/static-table.ts';
import { ErrorCode } from '../../cri/grpc/http2/errors.ts';
import {
  Flag,
  FrameType,
  frame,
  frameHeader,
  PREFACE,
  settingsFrame,
  words,
} from '../../cri/grpc/http2/frames.ts';
import { messagePrefix } from '../../cri/grpc/message-reader.ts';
import { SERVICE, ToyServer } from '../support/grpc-server.ts';
import { until } from '../support/pods.ts';

let toy: ToyServer;
const peers: Peer[] = [];

beforeAll(async () => {
  toy = await ToyServer.start();
});
afterEach(async () => {
  for (const peer of peers.splice(0)) peer.socket.destroy();
  // Whatever a peer did, others are served.
  const after = new Peer(toy.socket);
  after.send(headers(1, 'Echo'), data(1, messagePrefix(0)));
  await after.next(FrameType.DATA);
  after.socket.destroy();
});
afterAll(() => toy.close());

interface Got {
  type: number;
  flags: number;
  stream: number;
  payload: Buffer;
}

/** A client that sends any bytes and shows the frames that come. */
class Peer {
  readonly socket: net.Socket;
  readonly frames: Got[] = [];
  isClosed = false;
  #rest: Buffer = Buffer.alloc(0);

  /** @param opening what it sends first; default: what every client does */
  constructor(path: string, opening: Buffer = Buffer.concat([PREFACE, settingsFrame([])])) {
    this.socket = net.connect(path);
    this.socket.on('error', () => {});
    this.socket.on('close', () => {
      this.isClosed = true;
    });
    this.socket.on('data', (bytes: Buffer) => this.#read(bytes));
    this.socket.write(opening);
    peers.push(this);
  }

  send(...frames: Buffer[]): void {
    this.socket.write(Buffer.concat(frames));
  }

  /** The first frame of a type that has come or comes. */
  next(type: number): Promise<Got> {
    return until(`a frame of type ${type}`, () => this.frames.find((got) => got.type === type));
  }

  /** The error code of the GOAWAY that ends the connection. */
  async ended(): Promise<number> {
    const { payload } = await this.next(FrameType.GOAWAY);
    await until('the end', () => this.isClosed);
    return payload.readUInt32BE(4);
  }

  #read(bytes: Buffer): void {
    this.#rest = Buffer.concat([this.#rest, bytes]);
    while (this.#rest.length >= 9) {
      const end = 9 + this.#rest.readUIntBE(0, 3);
      if (this.#rest.length < end) return;
      const [type = 0, flags = 0] = this.#rest.subarray(3, 5);
      const stream = this.#rest.readUInt32BE(5);
      this.frames.push({ type, flags, stream, payload: Buffer.from(this.#rest.subarray(9, end)) });
      this.#rest = this.#rest.subarray(end);
    }
  }
}

const END = Flag.END_HEADERS;

function block(method: string, more: readonly HeaderField[] = []): Buffer {
  return encodeHeaders([
    [':method', 'POST'],
    [':scheme', 'http'],
    [':path', `${SERVICE}/${method}`],
    ['content-type', 'application/grpc'],
    ...more,
  ]);
}

function headers(stream: number, method: string, flags: number = END): Buffer {
  return frame(FrameType.HEADERS, flags, stream, block(method));
}

function data(stream: number, payload: Buffer, flags: number = Flag.END_STREAM): Buffer {
  return frame(FrameType.DATA, flags, stream, payload);
}

const ping = (bytes = Buffer.alloc(8), flags: number = Flag.NONE) => frame(FrameType.PING, flags, 0, bytes);
const windowUpdate = (stream: number, increment: number) =>
  frame(FrameType.WINDOW_UPDATE, Flag.NONE, stream, words(increment));

describe('a peer is told what is wrong, and loses its connection, for', () => {
  it.each<[string, number, Buffer]>([
    ['HTTP/1.1', ErrorCode.PROTOCOL_ERROR, Buffer.from('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n')],
    ['TLS', ErrorCode.PROTOCOL_ERROR, Buffer.from(`160301020001000${'1'.repeat(40)}`, 'hex')],
  ])('%s', async (_what, code, bytes) => {
    expect(await new Peer(toy.socket, bytes).ended()).toBe(code);
  });

  const { PROTOCOL_ERROR, FRAME_SIZE_ERROR, FLOW_CONTROL_ERROR, COMPRESSION_ERROR, ENHANCE_YOUR_CALM } =
    ErrorCode;
  it.each<[string, number, Buffer[]]>([
    ['a frame beyond the limit', FRAME_SIZE_ERROR, [frameHeader(16_385, FrameType.DATA, 0, 1)]],
    ['a ping of seven bytes', FRAME_SIZE_ERROR, [ping(Buffer.alloc(7))]],
    ['a ping of a stream', PROTOCOL_ERROR, [frame(FrameType.PING, 0, 1, Buffer.alloc(8))]],
    ['settings of a stream', PROTOCOL_ERROR, [frame(FrameType.SETTINGS, 0, 1, Buffer.alloc(0))]],
    [
      'an acknowledgement with settings',
      FRAME_SIZE_ERROR,
      [frame(FrameType.SETTINGS, 1, 0, Buffer.alloc(6))],
    ],
    ['settings out of range', FLOW_CONTROL_ERROR, [settingsFrame([[4, 2 ** 31]])]],
    ['data of no stream', PROTOCOL_ERROR, [data(1, Buffer.alloc(5))]],
    ['data of the connection', PROTOCOL_ERROR, [data(0, Buffer.alloc(5))]],
    ['a reset of no stream', PROTOCOL_ERROR, [frame(FrameType.RST_STREAM, 0, 1, words(8))]],
    ['a reset of three bytes', FRAME_SIZE_ERROR, [frame(FrameType.RST_STREAM, 0, 1, Buffer.alloc(3))]],
    ['a stream with an even number', PROTOCOL_ERROR, [headers(2, 'Echo')]],
    ['a push', PROTOCOL_ERROR, [frame(FrameType.PUSH_PROMISE, END, 1, words(2))]],
    ['a continuation of nothing', PROTOCOL_ERROR, [frame(FrameType.CONTINUATION, END, 1, block('Echo'))]],
    ['a frame within a header block', PROTOCOL_ERROR, [headers(1, 'Echo', Flag.NONE), ping()]],
    [
      'a continuation of another stream',
      PROTOCOL_ERROR,
      [headers(1, 'Echo', Flag.NONE), frame(FrameType.CONTINUATION, END, 3, Buffer.alloc(0))],
    ],
    [
      'headers without end',
      ENHANCE_YOUR_CALM,
      [
        headers(1, 'Echo', Flag.NONE),
        ...Array.from({ length: 10 }, () => frame(FrameType.CONTINUATION, 0, 1, Buffer.alloc(16_384))),
      ],
    ],
    [
      'header frames without anything in them',
      ENHANCE_YOUR_CALM,
      [
        headers(1, 'Echo', Flag.NONE),
        Buffer.concat(
          Array.from({ length: 8000 }, () => frame(FrameType.CONTINUATION, 0, 1, Buffer.alloc(0))),
        ),
      ],
    ],
    ['headers that are none', COMPRESSION_ERROR, [frame(FrameType.HEADERS, END, 1, Buffer.from([0x80]))]],
    ['padding longer than its frame', PROTOCOL_ERROR, [headers(1, 'Echo', END | Flag.PADDED)]],
    [
      'data after the end of its stream',
      PROTOCOL_ERROR,
      [headers(1, 'Hang'), data(1, messagePrefix(0)), data(1, Buffer.alloc(5))],
    ],
    ['headers within a stream', PROTOCOL_ERROR, [headers(1, 'Sum'), headers(1, 'Sum')]],
    ['a window update of 0', PROTOCOL_ERROR, [windowUpdate(0, 0)]],
    [
      'a window update of three bytes',
      FRAME_SIZE_ERROR,
      [frame(FrameType.WINDOW_UPDATE, 0, 0, Buffer.alloc(3))],
    ],
    ['a window update of no stream', PROTOCOL_ERROR, [windowUpdate(1, 1)]],
    ['a window beyond 2^31-1', FLOW_CONTROL_ERROR, [windowUpdate(0, 2 ** 31 - 1)]],
    ['such a window of a stream', FLOW_CONTROL_ERROR, [headers(1, 'Hang'), windowUpdate(1, 2 ** 31 - 1)]],
  ])('%s', async (_what, code, frames) => {
    const peer = new Peer(toy.socket);
    peer.send(...frames);
    expect(await peer.ended()).toBe(code);
  });

  it('more data than the window', async () => {
    const gate = Promise.withResolvers<void>();
    toy.gate = gate.promise;
    const peer = new Peer(toy.socket);
    peer.send(headers(1, 'Sum'));
    const piece = Buffer.concat([messagePrefix(16_000), Buffer.alloc(16_000)]);
    for (let i = 0; i < 70; i++) peer.send(data(1, piece, Flag.NONE));
    expect(await peer.ended()).toBe(FLOW_CONTROL_ERROR);
    gate.resolve();
  });

  it('pings whose answers it does not read', async () => {
    const peer = new Peer(toy.socket);
    await once(peer.socket, 'data');
    peer.socket.pause();
    const many = Buffer.concat(Array.from({ length: 4000 }, () => ping()));
    // The daemon reads on and answers until it has had enough.
    for (let i = 0; i < 200 && !peer.isClosed && !peer.socket.errored; i++) {
      if (!peer.socket.write(many)) await Promise.race([once(peer.socket, 'drain'), delay(2000)]);
    }
    peer.socket.resume();
    await until('the end', () => peer.isClosed);
  });
});

describe('a stream is reset for', () => {
  it.each<[string, HeaderField]>([
    ['a name in capitals', ['User-Agent', 'x']],
    ['a pseudo-header behind the others', [':authority', 'x']],
  ])('%s, and the connection goes on', async (_what, field) => {
    const peer = new Peer(toy.socket);
    peer.send(frame(FrameType.HEADERS, END, 1, block('Echo', [field])), data(1, messagePrefix(0)));
    const { stream, payload } = await peer.next(FrameType.RST_STREAM);
    expect([stream, payload.readUInt32BE(0)]).toEqual([1, ErrorCode.PROTOCOL_ERROR]);
    peer.send(headers(3, 'Echo'), data(3, messagePrefix(0)));
    expect((await peer.next(FrameType.DATA)).stream).toBe(3);
  });

  it('being one too many, until another has ended', async () => {
    const peer = new Peer(toy.socket);
    for (let i = 0; i < 1025; i++) peer.send(headers(2 * i + 1, 'Hang'), data(2 * i + 1, messagePrefix(0)));
    const { stream, payload } = await peer.next(FrameType.RST_STREAM);
    expect([stream, payload.readUInt32BE(0)]).toEqual([2049, ErrorCode.REFUSED_STREAM]);
    peer.send(
      frame(FrameType.RST_STREAM, 0, 1, words(8)),
      headers(2051, 'Echo'),
      data(2051, messagePrefix(0)),
    );
    expect((await peer.next(FrameType.DATA)).stream).toBe(2051);
  });
});

describe('a peer may', () => {
  it('send what nobody knows, and priorities', async () => {
    const peer = new Peer(toy.socket);
    peer.send(
      frame(0xfa as FrameType, 0xff, 7, Buffer.alloc(20)),
      frame(FrameType.PRIORITY, 0, 3, Buffer.alloc(5)),
    );
    peer.send(settingsFrame([[0xf0, 7]]), ping(Buffer.from('12345678')), ping(Buffer.alloc(8), Flag.ACK));
    const { payload, flags } = await peer.next(FrameType.PING);
    expect([String(payload), flags]).toEqual(['12345678', Flag.ACK]);
    expect(peer.frames.filter(({ type }) => type === FrameType.PING)).toHaveLength(1);
  });

  it('send its headers in pieces, with padding, and data with padding', async () => {
    const peer = new Peer(toy.socket);
    const whole = block('Echo');
    const padded = Buffer.concat([Buffer.from([3]), whole.subarray(0, 10), Buffer.alloc(3)]);
    peer.send(frame(FrameType.HEADERS, Flag.PADDED, 1, padded));
    for (const byte of whole.subarray(10))
      peer.send(frame(FrameType.CONTINUATION, 0, 1, Buffer.from([byte])));
    peer.send(frame(FrameType.CONTINUATION, END, 1, Buffer.alloc(0)));
    const body = Buffer.concat([Buffer.from([2]), messagePrefix(1), Buffer.from('a'), Buffer.alloc(2)]);
    peer.send(data(1, body, Flag.PADDED | Flag.END_STREAM));
    expect((await peer.next(FrameType.DATA)).payload).toEqual(
      Buffer.concat([messagePrefix(1), Buffer.from('a')]),
    );
  });

  it('end its request with trailers', async () => {
    const peer = new Peer(toy.socket);
    const trailers = encodeHeaders([['x-checksum', '1']]);
    peer.send(headers(1, 'Echo'), data(1, messagePrefix(0), Flag.NONE));
    peer.send(frame(FrameType.HEADERS, END | Flag.END_STREAM, 1, trailers));
    expect((await peer.next(FrameType.DATA)).stream).toBe(1);
  });

  it('reset a stream whose frames are still on their way', async () => {
    const peer = new Peer(toy.socket);
    peer.send(headers(1, 'Hang'), frame(FrameType.RST_STREAM, 0, 1, words(8)));
    peer.send(data(1, messagePrefix(0)), windowUpdate(1, 10), frame(FrameType.RST_STREAM, 0, 1, words(8)));
    peer.send(headers(3, 'Echo'), data(3, messagePrefix(0)));
    expect((await peer.next(FrameType.DATA)).stream).toBe(3);
  });

  it('begin and cancel ten thousand calls', async () => {
    const peer = new Peer(toy.socket);
    const before = toy.hanging.length;
    for (let i = 0; i < 10_000; i++) {
      const stream = 2 * i + 1;
      peer.send(
        headers(stream, 'Hang'),
        data(stream, messagePrefix(0)),
        frame(FrameType.RST_STREAM, 0, stream, words(8)),
      );
    }
    peer.send(headers(20_001, 'Echo'), data(20_001, messagePrefix(0)));
    expect((await peer.next(FrameType.DATA)).stream).toBe(20_001);
    expect(toy.hanging.slice(before).every(({ aborted }) => aborted)).toBe(true);
  });
});
