import type { Socket } from 'node:net';
import { HpackDecoder } from '../hpack/decoder.ts';
import { EMPTY_TABLE } from '../hpack/encoder.ts';
import type { HeaderField } from '../hpack/static-table.ts';
import { ConnectionError, ErrorCode } from './errors.ts';
import {
  Flag,
  type Frame,
  FrameReader,
  FrameType,
  frame,
  frameHeader,
  HEADER_BYTES,
  Setting,
  settingsFrame,
  unpadded,
  words,
} from './frames.ts';
import { Outbox } from './outbox.ts';
import { PeerSettings } from './peer-settings.ts';
import { ReceiveWindow } from './receive-window.ts';
import { type Link, STREAM_WINDOW, Stream, type StreamListener } from './stream.ts';

/** Calls at a time; a kubelet with 500 pods makes some dozens. */
const MAX_STREAMS = 1024;
/** Of a request's headers, bytes: a kubelet's have 300. */
const MAX_HEADER_BYTES = 64 * 1024;
/** Of what a client sends in all streams before it is told of more, bytes. */
const CONNECTION_WINDOW = 4 * STREAM_WINDOW;
/** What RFC 9113, 6.9.2 gives a connection at first. */
const INITIAL_WINDOW = 65_535;
const MAX_WINDOW = 2 ** 31 - 1;
/** Bytes that wait for a client which goes on asking for answers to PING or SETTINGS and reads none. */
const MAX_BACKLOG = 1024 * 1024;

const OPENING = Buffer.concat([
  settingsFrame([
    [Setting.MAX_CONCURRENT_STREAMS, MAX_STREAMS],
    [Setting.INITIAL_WINDOW_SIZE, STREAM_WINDOW],
    [Setting.MAX_HEADER_LIST_SIZE, MAX_HEADER_BYTES],
  ]),
  frame(FrameType.WINDOW_UPDATE, Flag.NONE, 0, words(CONNECTION_WINDOW - INITIAL_WINDOW)),
]);
const SETTINGS_ACK = frame(FrameType.SETTINGS, Flag.ACK, 0, Buffer.alloc(0));

/** A header block of which some frames have come. */
interface OpenBlock {
  readonly streamId: number;
  readonly isEnd: boolean;
  readonly parts: Buffer[];
  bytes: number;
}

/**
 * The server's side of one HTTP/2 connection without TLS (RFC 9113), as far as gRPC needs it: no push, no
 * priorities. Not node:http2, since there each call crosses into native code a dozen times: docs/bench.md has what
 * that costs, and what grpc-js on top of it does.
 */
export class Connection implements Link {
  readonly #socket: Socket;
  readonly #accept: (stream: Stream, headers: readonly HeaderField[]) => StreamListener | undefined;
  readonly #reader = new FrameReader();
  readonly #decoder = new HpackDecoder(MAX_HEADER_BYTES);
  readonly #outbox: Outbox;
  readonly #peer = new PeerSettings();
  readonly #received = new ReceiveWindow(CONNECTION_WINDOW);
  readonly #streams = new Map<number, Stream>();
  #block: OpenBlock | undefined;
  #sendWindow = INITIAL_WINDOW;
  #lastStream = 0;
  #isClosing = false;

  /**
   * @param accept takes a new stream with its headers; undefined when it has ended the stream already
   */
  constructor(
    socket: Socket,
    accept: (stream: Stream, headers: readonly HeaderField[]) => StreamListener | undefined,
  ) {
    this.#socket = socket;
    this.#accept = accept;
    this.#outbox = new Outbox(socket);
    socket.on('data', (bytes) => this.#read(bytes));
    socket.on('drain', () => this.#pump());
    // Its end follows.
    socket.on('error', () => {});
    socket.on('close', () => {
      for (const stream of [...this.#streams.values()]) stream.onGone();
    });
    this.#outbox.write(OPENING);
  }

  /** Takes no more streams, and ends when those that there are have ended. */
  close(): void {
    if (this.#isClosing) return;
    this.#isClosing = true;
    this.#goAway(ErrorCode.NO_ERROR);
    this.#endIfIdle();
  }

  /** Ends at once. */
  destroy(): void {
    this.#socket.destroy();
  }

  room(): number {
    return this.#outbox.isCongested ? 0 : Math.min(this.#sendWindow, this.#peer.maxFrame);
  }

  sendData(stream: number, parts: readonly Buffer[], bytes: number): void {
    this.#sendWindow -= bytes;
    this.#outbox.write(frameHeader(bytes, FrameType.DATA, Flag.NONE, stream), ...parts);
  }

  sendHeaders(stream: number, fields: Buffer, isEnd: boolean): void {
    const block = this.#peer.takeTableChange() ? Buffer.concat([EMPTY_TABLE, fields]) : fields;
    let [type, flags]: [FrameType, number] = [FrameType.HEADERS, isEnd ? Flag.END_STREAM : Flag.NONE];
    let at = 0;
    do {
      const part = block.subarray(at, at + this.#peer.maxFrame);
      at += part.length;
      if (at >= block.length) flags |= Flag.END_HEADERS;
      this.#outbox.write(frameHeader(part.length, type, flags, stream), part);
      [type, flags] = [FrameType.CONTINUATION, Flag.NONE];
    } while (at < block.length);
  }

  sendReset(stream: number, code: ErrorCode): void {
    this.#outbox.write(frame(FrameType.RST_STREAM, Flag.NONE, stream, words(code)));
  }

  sendWindowUpdate(stream: number, increment: number): void {
    this.#outbox.write(frame(FrameType.WINDOW_UPDATE, Flag.NONE, stream, words(increment)));
  }

  forget(stream: number): void {
    this.#streams.delete(stream);
    this.#endIfIdle();
  }

  #goAway(code: ErrorCode, reason = ''): void {
    const payload = Buffer.concat([words(this.#lastStream, code), Buffer.from(reason)]);
    this.#outbox.write(frame(FrameType.GOAWAY, Flag.NONE, 0, payload));
  }

  #endIfIdle(): void {
    if (!this.#isClosing || this.#streams.size > 0) return;
    this.#outbox.flush();
    // Also when the client keeps its side open.
    this.#socket.destroySoon();
  }

  #pump(): void {
    for (const stream of [...this.#streams.values()]) stream.pump();
  }

  #read(bytes: Buffer): void {
    try {
      for (const next of this.#reader.push(bytes)) this.#onFrame(next);
    } catch (e: unknown) {
      const error =
        e instanceof ConnectionError ? e : new ConnectionError(ErrorCode.INTERNAL_ERROR, String(e));
      this.#goAway(error.code, error.message);
      this.#outbox.flush();
      this.#socket.removeAllListeners('data').resume();
      this.#socket.destroySoon();
    }
  }

  #onFrame(next: Frame): void {
    const { type, streamId, payload } = next;
    if (this.#block !== undefined && type !== FrameType.CONTINUATION)
      throw protocolError('a broken header block');
    switch (type) {
      case FrameType.DATA:
        this.#onData(next);
        break;
      case FrameType.HEADERS:
        this.#onHeaders(next);
        break;
      case FrameType.CONTINUATION:
        this.#onContinuation(next);
        break;
      case FrameType.RST_STREAM:
        requireLength(next, 4);
        this.#requireKnown(streamId);
        this.#streams.get(streamId)?.onGone();
        break;
      case FrameType.SETTINGS:
        this.#onSettings(next);
        break;
      case FrameType.PING:
        requireLength(next, 8);
        if (streamId !== 0) throw protocolError('PING of a stream');
        if ((next.flags & Flag.ACK) === 0) this.#reply(frame(FrameType.PING, Flag.ACK, 0, payload));
        break;
      case FrameType.WINDOW_UPDATE:
        this.#onWindowUpdate(next);
        break;
      case FrameType.PUSH_PROMISE:
        throw protocolError('a client pushes nothing');
      default:
      // GOAWAY: its sender ends the connection. PRIORITY and types that nobody knows mean nothing here.
    }
  }

  #reply(bytes: Buffer): void {
    if (this.#outbox.backlog > MAX_BACKLOG) {
      throw new ConnectionError(ErrorCode.ENHANCE_YOUR_CALM, 'asks and does not read the answers');
    }
    this.#outbox.write(bytes);
  }

  #onData(next: Frame): void {
    const { streamId, payload, flags } = next;
    this.#requireKnown(streamId);
    this.#received.take(payload.length);
    const increment = this.#received.free(payload.length);
    if (increment > 0) this.sendWindowUpdate(0, increment);
    const bytes = unpadded(next);
    // Of a stream that has ended here some may still be on its way.
    const stream = this.#streams.get(streamId);
    if (stream === undefined) return;
    if (stream.isRemoteEnded) throw protocolError('data after the end of its stream');
    stream.onData(bytes, payload.length);
    if (flags & Flag.END_STREAM) stream.onRemoteEnd();
  }

  #onHeaders(next: Frame): void {
    const { streamId, flags } = next;
    if (streamId % 2 === 0) throw protocolError('a stream that no client opens');
    this.#block = { streamId, isEnd: (flags & Flag.END_STREAM) !== 0, parts: [], bytes: 0 };
    this.#addToBlock(this.#block, unpadded(next), flags);
  }

  #onContinuation({ streamId, flags, payload }: Frame): void {
    if (this.#block?.streamId !== streamId) throw protocolError('CONTINUATION of nothing');
    this.#addToBlock(this.#block, payload, flags);
  }

  #addToBlock(block: OpenBlock, part: Buffer, flags: number): void {
    block.parts.push(part);
    // Frames without anything in them have a limit, too.
    block.bytes += part.length + HEADER_BYTES;
    if (block.bytes > MAX_HEADER_BYTES) {
      throw new ConnectionError(
        ErrorCode.ENHANCE_YOUR_CALM,
        `headers of more than ${MAX_HEADER_BYTES} bytes`,
      );
    }
    if ((flags & Flag.END_HEADERS) === 0) return;
    this.#block = undefined;
    // Also of streams that are refused or gone: the decoder's table depends on every block.
    const headers = this.#decoder.decode(block.parts.length === 1 ? part : Buffer.concat(block.parts));
    if (block.streamId > this.#lastStream) this.#open(block, headers);
    else this.#onTrailers(block);
  }

  #open({ streamId, isEnd }: OpenBlock, headers: readonly HeaderField[]): void {
    // What GOAWAY has named as the last stays the last.
    if (!this.#isClosing) this.#lastStream = streamId;
    if (this.#isClosing || this.#streams.size >= MAX_STREAMS) {
      // The client may try again, here or elsewhere: nothing was done.
      this.sendReset(streamId, ErrorCode.REFUSED_STREAM);
      return;
    }
    const stream = new Stream(streamId, this, this.#peer.initialWindow);
    this.#streams.set(streamId, stream);
    stream.listener = this.#accept(stream, headers);
    if (isEnd) stream.onRemoteEnd();
  }

  #onTrailers({ streamId, isEnd }: OpenBlock): void {
    const stream = this.#streams.get(streamId);
    if (stream === undefined) return;
    if (stream.isRemoteEnded || !isEnd) throw protocolError('headers within a stream');
    stream.onRemoteEnd();
  }

  #onSettings(next: Frame): void {
    if (next.streamId !== 0) throw protocolError('SETTINGS of a stream');
    if (next.flags & Flag.ACK) {
      requireLength(next, 0);
      return;
    }
    const widened = this.#peer.apply(next.payload);
    this.#reply(SETTINGS_ACK);
    if (widened === 0) return;
    for (const stream of [...this.#streams.values()]) checkWindow(stream.widen(widened));
  }

  #onWindowUpdate(next: Frame): void {
    requireLength(next, 4);
    const increment = next.payload.readUInt32BE(0) & MAX_WINDOW;
    if (increment === 0) throw protocolError('a window update of 0');
    if (next.streamId !== 0) {
      this.#requireKnown(next.streamId);
      const stream = this.#streams.get(next.streamId);
      if (stream !== undefined) checkWindow(stream.widen(increment));
      return;
    }
    this.#sendWindow += increment;
    checkWindow(this.#sendWindow);
    this.#pump();
  }

  /** Frames of streams that were never opened. */
  #requireKnown(streamId: number): void {
    const isIdle = streamId > this.#lastStream && !this.#isClosing;
    if (streamId % 2 === 0 || isIdle) throw protocolError(`stream ${streamId} is not open`);
  }
}

function checkWindow(size: number): void {
  if (size > MAX_WINDOW) throw new ConnectionError(ErrorCode.FLOW_CONTROL_ERROR, 'a window beyond 2^31-1');
}

function requireLength({ payload }: Frame, length: number): void {
  if (payload.length !== length) {
    throw new ConnectionError(
      ErrorCode.FRAME_SIZE_ERROR,
      `a frame of ${payload.length} bytes, not ${length}`,
    );
  }
}

function protocolError(what: string): ConnectionError {
  return new ConnectionError(ErrorCode.PROTOCOL_ERROR, what);
}
