import { expect, test } from 'vitest';
import { encodeFrame, ProtocolError } from '../../../src/vm/protocol/frame.ts';
import { Mux, type MuxHandlers } from '../../../src/vm/protocol/mux.ts';
import { INITIAL_CREDIT, type MuxStream, type StreamHandlers } from '../../../src/vm/protocol/stream.ts';
import { random } from './fractions.ts';

/** One end with what it has sent and not yet delivered. */
interface End {
  mux: Mux;
  sent: Uint8Array[];
  /** Whether its transport takes more. */
  open: boolean;
}

function end(handlers: MuxHandlers = {}): End {
  const made: End = {
    sent: [],
    open: true,
    mux: new Mux((bytes) => {
      made.sent.push(bytes);
      return made.open;
    }, handlers),
  };
  return made;
}

/** Delivers until neither has anything left. */
function settle(a: End, b: End): void {
  while (a.sent.length + b.sent.length > 0) {
    for (const bytes of a.sent.splice(0)) b.mux.receive(bytes);
    for (const bytes of b.sent.splice(0)) a.mux.receive(bytes);
  }
}

/** A stream's user that notes what it is told, and passes on at once unless `slow`. */
function user({ slow = false } = {}) {
  const told = {
    bytes: 0,
    sum: 0,
    ended: false,
    drained: 0,
    aborted: undefined as string | undefined,
    stream: undefined as MuxStream | undefined,
  };
  const handlers: StreamHandlers = {
    data(chunk) {
      told.bytes += chunk.length;
      for (const byte of chunk) told.sum = (told.sum * 31 + byte) % 1_000_003;
      if (!slow) told.stream?.consumed(chunk.length);
    },
    end: () => {
      told.ended = true;
    },
    drain: () => {
      told.drained++;
    },
    aborted: (reason) => {
      told.aborted = reason;
    },
  };
  return { told, handlers };
}

function opened(mux: Mux, id: number, options: { slow?: boolean } = {}) {
  const { told, handlers } = user(options);
  const stream = mux.open(id, handlers);
  told.stream = stream;
  return { told, stream };
}

test('calls, answers and events arrive with their ids', () => {
  const seen: unknown[] = [];
  const a = end({
    response: (id, m) => seen.push(['response', id, m]),
    event: (m) => seen.push(['event', m]),
  });
  const b = end({
    request: (id, m) => {
      seen.push(['request', id, m]);
      b.mux.respond(id, { result: 1 });
      b.mux.tell({ event: 'ready' });
    },
  });
  a.mux.request(7, { method: 'hello' });
  settle(a, b);
  expect(seen).toEqual([
    ['request', 7, { method: 'hello' }],
    ['response', 7, { result: 1 }],
    ['event', { event: 'ready' }],
  ]);
});

test('a reader that passes nothing on stops its own writer, and nobody else', () => {
  const [a, b] = [end(), end()];
  const stuck = opened(a.mux, 1, { slow: true });
  const quick = opened(a.mux, 2);
  const writer = opened(b.mux, 1);
  const other = opened(b.mux, 2);
  writer.stream.write(new Uint8Array(INITIAL_CREDIT * 2));
  other.stream.write(new Uint8Array(INITIAL_CREDIT * 3));
  settle(a, b);
  expect(stuck.told.bytes).toBe(INITIAL_CREDIT);
  expect(writer.told.drained).toBe(0);
  expect(quick.told.bytes).toBe(INITIAL_CREDIT * 3);
  expect(other.told.drained).toBe(1);
  stuck.stream.consumed(INITIAL_CREDIT);
  settle(a, b);
  expect(stuck.told.bytes).toBe(INITIAL_CREDIT * 2);
  expect(writer.told.drained).toBe(1);
});

test('streams take turns, and a call overtakes all of their data', () => {
  const order: string[] = [];
  const b = end();
  const a = end({ event: () => order.push('event') });
  const note = (name: string): StreamHandlers => ({
    ...user().handlers,
    data: () => order.push(name),
  });
  a.mux.open(1, note('one'));
  a.mux.open(2, note('two'));
  b.open = false;
  const [one, two] = [b.mux.open(1, user().handlers), b.mux.open(2, user().handlers)];
  one.write(new Uint8Array(100_000));
  two.write(new Uint8Array(100_000));
  b.mux.tell({});
  b.open = true;
  b.mux.drained();
  settle(a, b);
  expect(order.slice(0, 6)).toEqual(['one', 'event', 'one', 'two', 'one', 'two']);
});

test('each direction ends by itself, and then the id is free', () => {
  const [a, b] = [end(), end()];
  const [left, right] = [opened(a.mux, 5), opened(b.mux, 5)];
  left.stream.write(new Uint8Array(3));
  left.stream.end();
  settle(a, b);
  expect(right.told).toMatchObject({ bytes: 3, ended: true });
  expect(() => a.mux.open(5, user().handlers)).toThrow(RangeError);
  right.stream.write(new Uint8Array(4));
  right.stream.end();
  settle(a, b);
  expect(left.told).toMatchObject({ bytes: 4, ended: true, aborted: undefined });
  a.mux.open(5, user().handlers);
  b.mux.open(5, user().handlers);
});

test('a reset ends both directions with its reason; what was on its way is dropped', () => {
  const [a, b] = [end(), end()];
  const [left, right] = [opened(a.mux, 1), opened(b.mux, 1)];
  right.stream.write(new Uint8Array(10));
  left.stream.reset('no such port');
  settle(a, b);
  expect(right.told.aborted).toBe('no such port');
  expect(left.told.bytes).toBe(0);
  right.stream.write(new Uint8Array(1));
  settle(a, b);
  expect(left.told.bytes).toBe(0);
});

test('the end of the connection aborts every stream, once', () => {
  const a = end();
  const { told, stream } = opened(a.mux, 1);
  a.mux.close('the VM has ended');
  expect(told.aborted).toBe('the VM has ended');
  told.aborted = undefined;
  a.mux.close('again');
  stream.write(new Uint8Array(1));
  expect(told.aborted).toBeUndefined();
  expect(a.sent).toEqual([]);
  expect(() => a.mux.open(2, user().handlers)).toThrow(RangeError);
});

test.each([
  ['more data than was granted', { type: 4, id: 1, payload: new Uint8Array(INITIAL_CREDIT + 1) }],
  ['credit past all bounds', { type: 6, id: 1, payload: new Uint8Array([0, 0, 0, 1]) }],
  ['a window of another length', { type: 6, id: 1, payload: new Uint8Array(3) }],
  ['a message that is no JSON', { type: 3, id: 0, payload: new Uint8Array([123]) }],
  ['a message that is no UTF-8', { type: 3, id: 0, payload: new Uint8Array([34, 0xff, 34]) }],
] as const)('%s is a ProtocolError', (_, frame) => {
  const a = end({ event: () => {} });
  opened(a.mux, 1);
  expect(() => a.mux.receive(encodeFrame(frame))).toThrow(ProtocolError);
});

test('all bytes arrive in order, whatever the sizes, speeds and turns', () => {
  const next = random(23);
  const [a, b] = [end(), end()];
  const pairs = [1, 2, 3].map((id) => ({
    reader: opened(a.mux, id, { slow: true }),
    writer: opened(b.mux, id),
    sum: 0,
    written: 0,
    passed: 0,
  }));
  for (let step = 0; step < 600; step++) {
    const pair = pairs[Math.floor(next() * pairs.length)];
    if (pair === undefined) break;
    const chunk = Uint8Array.from({ length: Math.floor(next() ** 4 * 20_000) }, () =>
      Math.floor(next() * 256),
    );
    for (const byte of chunk) pair.sum = (pair.sum * 31 + byte) % 1_000_003;
    pair.written += chunk.length;
    pair.writer.stream.write(chunk);
    b.open = next() < 0.6;
    if (b.open) b.mux.drained();
    if (next() < 0.3) for (const bytes of b.sent.splice(0)) a.mux.receive(bytes);
    if (next() < 0.3) for (const bytes of a.sent.splice(0)) b.mux.receive(bytes);
    const some = Math.floor((pair.reader.told.bytes - pair.passed) * next());
    pair.reader.stream.consumed(some);
    pair.passed += some;
  }
  b.open = true;
  b.mux.drained();
  for (let pass = 0; pass < 200; pass++) {
    settle(a, b);
    for (const pair of pairs) {
      pair.reader.stream.consumed(pair.reader.told.bytes - pair.passed);
      pair.passed = pair.reader.told.bytes;
    }
  }
  for (const { reader, sum, written } of pairs) expect(reader.told).toMatchObject({ bytes: written, sum });
});
