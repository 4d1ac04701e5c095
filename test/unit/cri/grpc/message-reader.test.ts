import { describe, expect, it } from 'vitest';
import { MAX_MESSAGE_BYTES, MessageReader, messagePrefix } from '../../../../cri/grpc/message-reader.ts';

const message = (text: string) => Buffer.concat([messagePrefix(text.length), Buffer.from(text)]);
const texts = (messages: Buffer[]) => messages.map(String);

describe('MessageReader', () => {
  const stream = Buffer.concat([message('one'), message(''), message('three')]);

  it.each([1, 2, 3, 5, 7, 100])('finds the messages in pieces of %d bytes', (size) => {
    const reader = new MessageReader();
    const found: string[] = [];
    for (let at = 0; at < stream.length; at += size)
      found.push(...texts(reader.push(stream.subarray(at, at + size))));
    expect(found).toEqual(['one', '', 'three']);
    expect(reader.isWithin).toBe(false);
  });

  it.each([1, 5, 6])('knows that it is within one after %d bytes', (bytes) => {
    const reader = new MessageReader();
    expect(reader.push(message('two').subarray(0, bytes))).toEqual([]);
    expect(reader.isWithin).toBe(true);
  });

  it('refuses a length beyond the limit before the message comes, and takes the limit', () => {
    const prefix = Buffer.alloc(5);
    prefix.writeUInt32BE(MAX_MESSAGE_BYTES, 1);
    expect(new MessageReader().push(prefix)).toEqual([]);
    prefix.writeUInt32BE(MAX_MESSAGE_BYTES + 1, 1);
    expect(() => new MessageReader().push(prefix)).toThrow(expect.objectContaining({ kind: 'exhausted' }));
  });

  it('refuses a compressed message, and says what it takes', () => {
    expect(() => new MessageReader().push(Buffer.from([1, 0, 0, 0, 0]))).toThrow(
      expect.objectContaining({ kind: 'unimplemented', message: expect.stringContaining('identity') }),
    );
  });
});

it('messagePrefix refuses an answer that no client takes', () => {
  expect(messagePrefix(MAX_MESSAGE_BYTES)).toEqual(Buffer.from([0, 1, 0, 0, 0]));
  expect(() => messagePrefix(MAX_MESSAGE_BYTES + 1)).toThrow(expect.objectContaining({ kind: 'exhausted' }));
});
