import { describe, expect, it } from 'vitest';
import { ErrorCode } from '../../../../cri/grpc/http2/errors.ts';
import {
  Flag,
  FrameReader,
  FrameType,
  frame,
  frameHeader,
  PREFACE,
  Setting,
  settingsFrame,
  unpadded,
} from '../../../../cri/grpc/http2/frames.ts';
import { PeerSettings } from '../../../../cri/grpc/http2/peer-settings.ts';
import { ReceiveWindow } from '../../../../cri/grpc/http2/receive-window.ts';

const code = (code: number) => expect.objectContaining({ name: 'ConnectionError', code });
const settings = (...pairs: [number, number][]) => settingsFrame(pairs).subarray(9);

describe('FrameReader', () => {
  const wire = Buffer.concat([
    PREFACE,
    frame(FrameType.PING, Flag.NONE, 0, Buffer.alloc(8)),
    frame(FrameType.DATA, Flag.END_STREAM, 5, Buffer.from('hello')),
    frame(FrameType.SETTINGS, Flag.ACK, 0, Buffer.alloc(0)),
  ]);

  it.each([1, 8, 9, 23, 24, 40, 1000])('finds the frames in pieces of %d bytes', (size) => {
    const reader = new FrameReader();
    const found: unknown[] = [];
    for (let at = 0; at < wire.length; at += size)
      for (const { type, flags, streamId, payload } of reader.push(wire.subarray(at, at + size)))
        found.push([type, flags, streamId, String(payload)]);
    expect(found).toEqual([
      [FrameType.PING, 0, 0, '\0'.repeat(8)],
      [FrameType.DATA, 1, 5, 'hello'],
      [FrameType.SETTINGS, 1, 0, ''],
    ]);
  });

  it('ignores the reserved bit of stream ids', () => {
    const [found] = [...new FrameReader().push(Buffer.concat([PREFACE, frameHeader(0, 0, 0, 0x8000_0007)]))];
    expect(found?.streamId).toBe(7);
  });

  it('refuses what is no HTTP/2', () => {
    const request = Buffer.from('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n');
    expect(() => [...new FrameReader().push(request)]).toThrow(code(ErrorCode.PROTOCOL_ERROR));
  });

  it('refuses a frame that is too large by its header', () => {
    const reader = new FrameReader();
    expect(() => [...reader.push(Buffer.concat([PREFACE, frameHeader(16_385, 0, 0, 1)]))]).toThrow(
      code(ErrorCode.FRAME_SIZE_ERROR),
    );
  });
});

describe('unpadded', () => {
  const of = (type: number, flags: number, payload: number[]) => [
    ...unpadded({ type, flags, streamId: 1, payload: Buffer.from(payload) }),
  ];

  it('leaves out padding and priority', () => {
    expect(of(FrameType.DATA, 0, [1, 2])).toEqual([1, 2]);
    expect(of(FrameType.DATA, Flag.PADDED, [2, 1, 0, 0])).toEqual([1]);
    expect(of(FrameType.HEADERS, Flag.PRIORITY, [0, 0, 0, 1, 16, 7])).toEqual([7]);
    expect(of(FrameType.HEADERS, Flag.PADDED | Flag.PRIORITY, [1, 0, 0, 0, 1, 16, 7, 0])).toEqual([7]);
  });

  it.each<[number, number, number[]]>([
    [FrameType.DATA, Flag.PADDED, []],
    [FrameType.DATA, Flag.PADDED, [2, 0]],
    [FrameType.HEADERS, Flag.PRIORITY, [0, 0, 0, 1]],
  ])('refuses more of it than there is (%d, %d, %j)', (type, flags, payload) => {
    expect(() => of(type, flags, payload)).toThrow(code(ErrorCode.PROTOCOL_ERROR));
  });
});

describe('PeerSettings', () => {
  it('tells by how much windows change', () => {
    const peer = new PeerSettings();
    expect([peer.initialWindow, peer.maxFrame]).toEqual([65_535, 16_384]);
    expect(peer.apply(settings([Setting.INITIAL_WINDOW_SIZE, 100], [Setting.MAX_FRAME_SIZE, 20_000]))).toBe(
      100 - 65_535,
    );
    expect([peer.initialWindow, peer.maxFrame]).toEqual([100, 20_000]);
    expect(peer.apply(settings([99, 1]))).toBe(0);
  });

  it('remembers once that the table for headers has shrunk', () => {
    const peer = new PeerSettings();
    peer.apply(settings([Setting.HEADER_TABLE_SIZE, 4096]));
    expect(peer.takeTableChange()).toBe(false);
    peer.apply(settings([Setting.HEADER_TABLE_SIZE, 0], [Setting.HEADER_TABLE_SIZE, 8192]));
    expect([peer.takeTableChange(), peer.takeTableChange()]).toEqual([true, false]);
  });

  it.each<[string, Buffer, number]>([
    ['a window of 2^31', settings([Setting.INITIAL_WINDOW_SIZE, 2 ** 31]), ErrorCode.FLOW_CONTROL_ERROR],
    ['small frames', settings([Setting.MAX_FRAME_SIZE, 16_383]), ErrorCode.PROTOCOL_ERROR],
    ['large frames', settings([Setting.MAX_FRAME_SIZE, 2 ** 24]), ErrorCode.PROTOCOL_ERROR],
    ['push of two', settings([Setting.ENABLE_PUSH, 2]), ErrorCode.PROTOCOL_ERROR],
    ['half a setting', Buffer.alloc(5), ErrorCode.FRAME_SIZE_ERROR],
  ])('refuses %s', (_what, payload, expected) => {
    expect(() => new PeerSettings().apply(payload)).toThrow(code(expected));
  });
});

describe('ReceiveWindow', () => {
  it('gives back what is free when it is worth a frame', () => {
    const window = new ReceiveWindow(100);
    window.take(60);
    expect(window.free(40)).toBe(0);
    window.take(40);
    expect(window.free(10)).toBe(50);
    window.take(50);
    expect(() => window.take(1)).toThrow(code(ErrorCode.FLOW_CONTROL_ERROR));
  });
});
