import { once } from 'node:events';
import { Duplex, PassThrough } from 'node:stream';
import { buffer, text } from 'node:stream/consumers';
import { describe, expect, it } from 'vitest';
import { SpdyConnection, type StreamListener } from '../../../src/streaming/spdy/connection.ts';
import { DICTIONARY_ID, headerDictionary } from '../../../src/streaming/spdy/dictionary.ts';
import { SpdyError } from '../../../src/streaming/spdy/error.ts';
import { FrameParser } from '../../../src/streaming/spdy/frames.ts';
import { HeaderReader, HeaderWriter } from '../../../src/streaming/spdy/headers.ts';
import type { SpdyStream } from '../../../src/streaming/spdy/stream.ts';
import { eventually } from '../../support/eventually.ts';
import { control, data, uint32, WireClient, type WireFrame, WireReader } from '../../support/spdy-wire.ts';
import { adler32 } from './adler32.ts';

const SYN_REPLY = 2;
const RST_STREAM = 3;
const PING = 6;
const GOAWAY = 7;

/** A connection whose other end is in the test's hands. */
class Peer {
  readonly wire = new WireClient(headerDictionary());
  readonly frames: WireFrame[] = [];
  readonly connection: SpdyConnection;
  readonly streams: SpdyStream[] = [];
  // No chunk is larger than what a socket gives at once.
  readonly toServer = new PassThrough({ highWaterMark: 1 << 16 });
  readonly transport: Duplex;

  constructor(onStream: StreamListener = () => true) {
    const fromServer = new PassThrough({ highWaterMark: 1 << 20 });
    const reader = new WireReader();
    fromServer.on('data', (chunk: Buffer) => this.frames.push(...reader.push(chunk)));
    this.transport = Duplex.from({ readable: this.toServer, writable: fromServer });
    this.connection = new SpdyConnection(this.transport, (stream) => {
      this.streams.push(stream);
      return onStream(stream);
    });
  }

  async open(id: number, headers: Record<string, string> = { streamtype: 'data' }): Promise<SpdyStream> {
    const before = this.streams.length;
    this.send(await this.wire.synStream(id, headers));
    await eventually(() => expect(this.streams.length).toBe(before + 1));
    return this.streams.at(-1) as SpdyStream;
  }

  send(...parts: Buffer[]): void {
    for (const part of parts) this.toServer.write(part);
  }

  async sent(type: number | undefined): Promise<WireFrame> {
    return eventually(() => {
      const frame = this.frames.find((f) => f.type === type);
      if (frame === undefined) throw new Error(`no frame of type ${type}`);
      return frame;
    });
  }
}

describe('the header dictionary', () => {
  it('is the one that its id names', () => {
    expect(headerDictionary().length).toBe(1423);
    expect(adler32(headerDictionary())).toBe(DICTIONARY_ID);
  });
});

describe('header blocks', () => {
  it('are read from what zlib compresses, one after the other with its window', async () => {
    const wire = new WireClient(headerDictionary());
    const reader = new HeaderReader();
    for (let i = 0; i < 300; i++) {
      const headers = {
        streamtype: i % 2 ? 'error' : 'data',
        port: '8080',
        requestid: String(i),
        x: 'é'.repeat(i),
      };
      const frame = await wire.synStream(2 * i + 1, headers);
      expect(Object.fromEntries(reader.read(frame.subarray(18)))).toEqual(headers);
    }
  });

  it('that this side writes are what zlib reads', async () => {
    const wire = new WireClient(headerDictionary());
    const writer = new HeaderWriter();
    for (const headers of [{}, { status: '200' }, { a: '1', b: 'x'.repeat(9000) }]) {
      const block = writer.write(new Map(Object.entries(headers)));
      const payload = Buffer.concat([uint32(1), block]);
      expect(await wire.headersOf({ type: SYN_REPLY, flags: 0, stream: 1, payload })).toEqual(headers);
    }
  });

  it('keep the first of several values, and lower-case names', async () => {
    const frame = await new WireClient(headerDictionary()).synStream(1, { StreamType: 'stdin\0stdout' });
    expect(Object.fromEntries(new HeaderReader().read(frame.subarray(18)))).toEqual({ streamtype: 'stdin' });
  });

  it('that would grow beyond 16 KiB are refused', async () => {
    const frame = await new WireClient(headerDictionary()).synStream(1, { bomb: 'a'.repeat(5_000_000) });
    expect(frame.length).toBeLessThan(16 * 1024);
    expect(() => new HeaderReader().read(frame.subarray(18))).toThrow(SpdyError);
  });

  it('with lengths beyond their end, no name, or a name twice are refused', () => {
    const read = (block: Buffer) => {
      const stored = Buffer.alloc(5);
      stored.writeUInt16LE(block.length, 1);
      stored.writeUInt16LE(~block.length & 0xffff, 3);
      const head = Buffer.concat([Buffer.from([0x78, 0xbb]), uint32(DICTIONARY_ID)]);
      return () => new HeaderReader().read(Buffer.concat([head, stored, block]));
    };
    expect(read(uint32(1))).toThrow(SpdyError);
    expect(read(Buffer.concat([uint32(1), uint32(0xffff_ffff)]))).toThrow(SpdyError);
    expect(read(Buffer.concat([uint32(0xffff_ffff), uint32(0)]))).toThrow(SpdyError);
    expect(read(Buffer.concat([uint32(1), uint32(0), uint32(0)]))).toThrow(SpdyError);
    const a = Buffer.concat([uint32(1), Buffer.from('a'), uint32(0)]);
    expect(read(Buffer.concat([uint32(2), a, a]))).toThrow(SpdyError);
    expect(read(Buffer.concat([uint32(1), a]))()).toEqual(new Map([['a', '']]));
  });

  it('without zlib’s header or with another dictionary are refused', () => {
    for (const bytes of ['', '78', '789c00000000000000', '78bb00000000', 'ffffffffffff'])
      expect(() => new HeaderReader().read(Buffer.from(bytes, 'hex')), bytes).toThrow(SpdyError);
  });
});

describe('a connection', () => {
  it('replies to a stream, reads it to its end and writes it', async () => {
    const peer = new Peer();
    const stream = await peer.open(1, { streamtype: 'stdin', port: '1' });
    expect([stream.id, Object.fromEntries(stream.headers)]).toEqual([1, { streamtype: 'stdin', port: '1' }]);
    expect(await peer.wire.headersOf(await peer.sent(SYN_REPLY))).toEqual({});
    peer.send(data(1, 'hel'), data(1, 'lo'), data(1, '', true));
    expect(await text(stream)).toBe('hello');
    stream.end('answer');
    await eventually(() => expect(peer.frames.at(-1)).toMatchObject({ stream: 1, flags: 1 }));
    expect(
      Buffer.concat(peer.frames.filter((f) => f.type === undefined).map((f) => f.payload)).toString(),
    ).toBe('answer');
    // Both halves are over: nothing is left to reset.
    expect(peer.frames.some((f) => f.type === RST_STREAM)).toBe(false);
  });

  it('means the same wherever the bytes are cut', async () => {
    const wire = new WireClient(headerDictionary());
    const bytes = Buffer.concat([
      await wire.synStream(1, { streamtype: 'error' }),
      control(4, 0, uint32(0)),
      control(PING, 0, uint32(7)),
      await wire.synStream(3, { streamtype: 'data' }),
      data(3, 'abc'),
      control(9, 0, Buffer.concat([uint32(3), uint32(10)])),
      data(3, 'defg', true),
      control(77, 0, Buffer.from('an extension')),
      data(1, 'last', true),
    ]);
    for (const size of [1, 2, 3, 5, 7, 8, 9, 11, 64, bytes.length]) {
      const peer = new Peer();
      for (let at = 0; at < bytes.length; at += size) peer.send(bytes.subarray(at, at + size));
      await eventually(() => expect(peer.streams.length).toBe(2));
      const [one, three] = peer.streams as [SpdyStream, SpdyStream];
      expect([await text(one), await text(three)], `cut at ${size}`).toEqual(['last', 'abcdefg']);
      expect((await peer.sent(PING)).stream).toBe(7);
    }
  });

  it('resets a stream that is not wanted, or that this side gives up', async () => {
    const peer = new Peer((stream) => stream.headers.get('streamtype') !== 'odd');
    await peer.open(1, { streamtype: 'odd' });
    expect(await peer.sent(RST_STREAM)).toMatchObject({ stream: 1 });
    peer.frames.length = 0;
    (await peer.open(3)).destroy();
    expect(await peer.sent(RST_STREAM)).toMatchObject({ stream: 3 });
    peer.send(data(3, 'too late'), data(1, 'too late'));
    expect(await text(endOf(peer, await peer.open(5), 'fine'))).toBe('fine');
  });

  it('closes a stream without an end when the peer resets it', async () => {
    const peer = new Peer();
    const stream = await peer.open(1);
    peer.send(data(1, 'some'), control(RST_STREAM, 0, Buffer.concat([uint32(1), uint32(5)])));
    await once(stream, 'close');
    expect([stream.readableEnded, stream.destroyed]).toEqual([false, true]);
    expect(await text(endOf(peer, await peer.open(3), 'fine'))).toBe('fine');
  });

  it('closes all streams without an end when the transport goes', async () => {
    const peer = new Peer();
    const stream = await peer.open(1);
    const closed = once(stream, 'close');
    peer.toServer.end();
    await closed;
    expect([stream.readableEnded, peer.connection.closed.aborted]).toEqual([false, true]);
  });

  it('stops reading while a consumer is slow, and goes on after it', async () => {
    const peer = new Peer();
    const slow = await peer.open(1);
    const other = await peer.open(3);
    const piece = Buffer.alloc(16 * 1024, 'x');
    for (let i = 0; i < 40; i++) peer.send(data(1, piece));
    peer.send(data(1, '', true), data(3, 'after', true));
    await eventually(() => expect(peer.transport.isPaused()).toBe(true));
    expect(slow.readableLength).toBeLessThan(400 * 1024);
    expect(other.readableLength).toBe(0);
    expect((await buffer(slow)).length).toBe(40 * piece.length);
    expect(await text(other)).toBe('after');
  });

  it('refuses streams beyond a thousand', async () => {
    const peer = new Peer();
    for (let i = 0; i < 1000; i++) peer.send(await peer.wire.synStream(2 * i + 1, {}));
    peer.send(await peer.wire.synStream(2001, {}));
    expect(await peer.sent(RST_STREAM)).toMatchObject({ stream: 2001 });
    expect(peer.streams.length).toBe(1000);
  });

  it('says goodbye when it closes, after what was written', async () => {
    const peer = new Peer();
    (await peer.open(1)).write('last words');
    peer.connection.close();
    await peer.sent(GOAWAY);
    expect(peer.frames.map((f) => f.type)).toEqual([SYN_REPLY, undefined, GOAWAY]);
  });

  it.each([
    ['another version', Buffer.from('8002000100000000', 'hex')],
    ['a control frame of 16 MiB', Buffer.from('8003000100ffffff', 'hex')],
    ['a SYN_STREAM that is too short', control(1, 0, Buffer.alloc(9))],
    ['a ping that is too long', control(PING, 0, Buffer.alloc(8))],
    ['data of stream 0', data(0, 'x')],
    ['headers that are not compressed', control(1, 0, Buffer.alloc(40, 1))],
    ['HTTP', Buffer.from('\xffGET / HTTP/1.1\r\n\r\n', 'latin1')],
  ])('ends with a goodbye on %s', async (_what, bytes) => {
    const peer = new Peer();
    peer.send(bytes);
    expect((await peer.sent(GOAWAY)).payload.readUInt32BE(4)).toBe(1);
    expect(peer.connection.closed.aborted).toBe(true);
    peer.send(Buffer.alloc(100, 0xff));
    expect(peer.streams).toEqual([]);
  });

  it.each([
    ['an even number', [2]],
    ['a number again', [3, 3]],
    ['a smaller number', [5, 3]],
  ])('ends on a stream with %s', async (_what, ids) => {
    const peer = new Peer();
    for (const id of ids) peer.send(await peer.wire.synStream(id, {}));
    await peer.sent(GOAWAY);
    expect(peer.connection.closed.aborted).toBe(true);
  });
});

describe('the client’s side', () => {
  it('talks to the server’s side', async () => {
    const [a, b] = [new PassThrough(), new PassThrough()];
    const served: SpdyStream[] = [];
    const server = new SpdyConnection(Duplex.from({ readable: a, writable: b }), (stream) => {
      served.push(stream);
      stream.pipe(stream);
      return true;
    });
    const client = new SpdyConnection(Duplex.from({ readable: b, writable: a }));
    const big = Buffer.alloc(3_000_000, 'abc');
    const answers = ['x', 'y'].map((port) => {
      const stream = client.open(new Map([['port', port]]));
      stream.end(Buffer.concat([Buffer.from(port), big]));
      return buffer(stream);
    });
    const [x, y] = await Promise.all(answers);
    expect([x?.toString('utf8', 0, 1), x?.length, y?.toString('utf8', 0, 1), y?.length]).toEqual([
      ...['x', big.length + 1],
      ...['y', big.length + 1],
    ]);
    expect(served.map((s) => s.headers.get('port'))).toEqual(['x', 'y']);
    server.close();
    await eventually(() => expect(client.closed.aborted).toBe(true));
  });
});

describe('fuzzing', { timeout: 30_000 }, () => {
  /** Numbers that a seed decides, so that a failure can be had again (xorshift32). */
  function random(seed: number): () => number {
    let state = seed * 2654435761 || 1;
    return () => {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      return (state >>> 0) / 2 ** 32;
    };
  }

  it('of valid traffic with flipped bytes never throws or keeps a stream after the end', async () => {
    const wire = new WireClient(headerDictionary());
    const valid = Buffer.concat([
      await wire.synStream(1, { streamtype: 'error', port: '80', requestid: '0' }),
      await wire.synStream(3, { streamtype: 'data', port: '80', requestid: '0' }),
      ...[data(3, 'a'.repeat(300)), data(1, '', true), control(PING, 0, uint32(1))],
      ...[control(RST_STREAM, 0, Buffer.concat([uint32(3), uint32(5)])), data(3, 'x')],
      control(GOAWAY, 0, Buffer.alloc(8)),
    ]);
    let failed = 0;
    for (let seed = 1; seed <= 800; seed++) {
      const next = random(seed);
      const bytes = Buffer.from(valid);
      for (let i = 0; i < 1 + next() * 4; i++)
        bytes[Math.floor(next() * bytes.length)] = Math.floor(next() * 256);
      const transport = new PassThrough();
      transport.write = () => true;
      const streams: SpdyStream[] = [];
      const connection = new SpdyConnection(transport, (stream) => {
        stream.resume();
        streams.push(stream);
        return true;
      });
      for (let at = 0; at < bytes.length; ) {
        const size = 1 + Math.floor(next() * 40);
        transport.emit('data', bytes.subarray(at, at + size));
        at += size;
      }
      if (connection.closed.aborted) {
        failed++;
        expect(
          streams.every((s) => s.destroyed),
          `seed ${seed}`,
        ).toBe(true);
      }
      transport.destroy();
    }
    // Some damage is found, and some is in what streams carry.
    expect(failed).toBeGreaterThan(200);
    expect(failed).toBeLessThan(800);
  });

  it('of a parser with noise throws SpdyError alone, and keeps no more than a frame', () => {
    for (let seed = 1; seed <= 1000; seed++) {
      const next = random(seed);
      const parser = new FrameParser({ control: () => {}, data: () => {} });
      try {
        for (let i = 0; i < 50; i++) {
          const bytes = Buffer.from(
            Array.from({ length: 1 + Math.floor(next() * 40) }, () => Math.floor(next() * 256)),
          );
          // Begin like a control frame half of the time.
          if (next() < 0.5) bytes.set([0x80, 3, 0].slice(0, bytes.length));
          parser.push(bytes);
        }
      } catch (e: unknown) {
        expect(e, `seed ${seed}`).toBeInstanceOf(SpdyError);
      }
    }
  });
});

/** Sends a text and the end on a stream. */
function endOf(peer: Peer, stream: SpdyStream, what: string): SpdyStream {
  peer.send(data(stream.id, what, true));
  return stream;
}
