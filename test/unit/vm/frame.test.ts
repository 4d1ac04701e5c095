import { expect, test } from 'vitest';
import {
  DATA,
  encodeFrame,
  type Frame,
  FrameReader,
  HEADER_BYTES,
  MAX_PAYLOAD_BYTES,
  ProtocolError,
  REQUEST,
  WINDOW,
} from '../../../src/vm/protocol/frame.ts';
import { random } from './fractions.ts';

const bytes = (length: number, next: () => number) =>
  Uint8Array.from({ length }, () => Math.floor(next() * 256));

test('a frame is its length, type and id in network order, and its payload', () => {
  expect([...encodeFrame({ type: DATA, id: 0x01020304, payload: new Uint8Array([9, 8]) })]).toEqual([
    0, 0, 0, 2, 4, 1, 2, 3, 4, 9, 8,
  ]);
});

test('frames come out as they went in, however the bytes are cut', () => {
  const next = random(7);
  for (let round = 0; round < 200; round++) {
    const frames: Frame[] = Array.from({ length: 1 + Math.floor(next() * 6) }, () => ({
      type: ([1, 2, 3, 4, 5, 6] as const)[Math.floor(next() * 6)] ?? DATA,
      id: Math.floor(next() * 0x1_0000_0000),
      payload: bytes(Math.floor(next() ** 3 * 3000), next),
    }));
    const all = Buffer.concat(frames.map(encodeFrame));
    const reader = new FrameReader();
    const read: Frame[] = [];
    for (let at = 0; at < all.length; ) {
      const size = 1 + Math.floor(next() ** 2 * 700);
      read.push(...reader.push(all.subarray(at, at + size)));
      at += size;
    }
    expect(read).toEqual(frames);
  }
});

test('a payload of the greatest size passes, a longer one is refused by both sides', () => {
  const largest = { type: REQUEST, id: 1, payload: new Uint8Array(MAX_PAYLOAD_BYTES) } as const;
  expect(new FrameReader().push(encodeFrame(largest))[0]?.payload.length).toBe(MAX_PAYLOAD_BYTES);
  expect(() => encodeFrame({ ...largest, payload: new Uint8Array(MAX_PAYLOAD_BYTES + 1) })).toThrow(
    RangeError,
  );
  const header = encodeFrame({ ...largest, payload: new Uint8Array(0) });
  new DataView(header.buffer).setUint32(0, MAX_PAYLOAD_BYTES + 1);
  expect(() => new FrameReader().push(header)).toThrow(ProtocolError);
});

test.each([0, WINDOW + 1, 255])('type %i is refused', (type) => {
  const header = new Uint8Array(HEADER_BYTES);
  header[4] = type;
  expect(() => new FrameReader().push(header)).toThrow(ProtocolError);
});

test('any bytes end in frames or in a ProtocolError', () => {
  const next = random(11);
  let [refused, read] = [0, 0];
  for (let round = 0; round < 2000; round++) {
    const chunk = bytes(Math.floor(next() * 60), next);
    // Random lengths would all be over the limit.
    chunk[0] = 0;
    chunk[1] = 0;
    if (next() < 0.7) chunk[2] = 0;
    if (next() < 0.7) chunk[4] = Math.floor(next() * 9);
    try {
      read += new FrameReader().push(chunk).length;
    } catch (e: unknown) {
      expect(e).toBeInstanceOf(ProtocolError);
      refused++;
    }
  }
  expect(Math.min(refused, read)).toBeGreaterThan(10);
});
