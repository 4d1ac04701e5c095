import { describe, expect, it } from 'vitest';
import {
  encodeFrame,
  type Frame,
  FrameReader,
  MAX_DATA_BYTES,
  RESPONSE,
} from '../../../src/shim/ttrpc/frame.ts';
import { randomSource } from './random.ts';

const frame = (data: Buffer, more: Partial<Frame> = {}): Frame => ({
  streamId: 1,
  type: RESPONSE,
  flags: 0,
  data,
  ...more,
});

describe('a ttrpc frame', () => {
  it('is ten bytes of header, big-endian, and the data', () => {
    const bytes = encodeFrame({ streamId: 0x01020304, type: 1, flags: 5, data: Buffer.from('hello') });
    expect(bytes.toString('hex')).toBe(
      `00000005${'01020304'}${'01'}${'05'}${Buffer.from('hello').toString('hex')}`,
    );
  });

  it('holds at most 4 MiB', () => {
    const most = Buffer.alloc(MAX_DATA_BYTES, 'x');
    expect(new FrameReader().push(encodeFrame(frame(most)))[0]?.data.equals(most)).toBe(true);
    expect(() => encodeFrame(frame(Buffer.alloc(MAX_DATA_BYTES + 1)))).toThrow(/at most 4 MiB/);
    const header = Buffer.alloc(10);
    header.writeUInt32BE(MAX_DATA_BYTES + 1);
    expect(() => new FrameReader().push(header)).toThrow(/at most 4 MiB/);
  });

  it('is read however the stream is cut, empty ones too', () => {
    const sent = [
      frame(Buffer.from('a')),
      frame(Buffer.alloc(0), { streamId: 2 ** 32 - 1 }),
      frame(Buffer.alloc(300, 7)),
    ];
    const stream = Buffer.concat(sent.map(encodeFrame));
    for (const size of [1, 2, 3, 9, 10, 11, 12, 50, stream.length]) {
      const reader = new FrameReader();
      const got: Frame[] = [];
      for (let at = 0; at < stream.length; at += size)
        got.push(...reader.push(stream.subarray(at, at + size)));
      expect(got, `pieces of ${size}`).toEqual(sent);
    }
  });

  it('survives any bytes: they are frames or the one error', () => {
    const random = randomSource(0xbe47);
    for (let round = 0; round < 300; round++) {
      const reader = new FrameReader();
      const bytes = random.bytes(random.below(400));
      // Half of the rounds with a length that can be right.
      if (round % 2 === 0 && bytes.length >= 4) bytes.writeUInt32BE(random.below(64), 0);
      let data = 0;
      try {
        for (let at = 0; at < bytes.length; ) {
          const size = 1 + random.below(40);
          for (const got of reader.push(bytes.subarray(at, at + size))) data += 10 + got.data.length;
          at += size;
        }
      } catch (e: unknown) {
        expect((e as Error).message).toMatch(/at most 4 MiB/);
      }
      expect(data).toBeLessThanOrEqual(bytes.length);
    }
  });
});
