import { describe, expect, it } from 'vitest';
import { BerthError } from '../../../src/errors.ts';
import { parseBootstrap } from '../../../src/shim/bootstrap.ts';
import { randomSource } from './random.ts';

const parse = (answer: string) => parseBootstrap(Buffer.from(answer));

describe("what a shim's start verb prints", () => {
  it('is an address of version 2', () => {
    expect(parse('unix:///run/containerd/s/0a1b\n')).toEqual({
      version: 2,
      socket: '/run/containerd/s/0a1b',
    });
  });

  it('may be an abstract address', () => {
    expect(parse('/containerd-shim/k8s.io/x/shim.sock')).toEqual({
      version: 2,
      socket: '\0/containerd-shim/k8s.io/x/shim.sock',
    });
  });

  it('is a JSON object from version 3 on', () => {
    const address = 'unix:///run/s';
    expect(parse(JSON.stringify({ version: 3, address, protocol: 'ttrpc' }))).toEqual({
      version: 3,
      socket: '/run/s',
    });
    expect(parse(JSON.stringify({ version: 2, address, protocol: 'ttrpc', more: [] }))).toEqual({
      version: 2,
      socket: '/run/s',
    });
  });

  it.each([
    [
      'a later version',
      '{"version":4,"address":"unix:///s","protocol":"ttrpc"}',
      'unimplemented',
      /versio.*4/,
    ],
    ['another protocol', '{"version":3,"address":"unix:///s","protocol":"grpc"}', 'unimplemented', /grpc/],
    ['another kind of socket', 'vsock://3:1024', 'unimplemented', /vsock/],
    ['half an object', '{"version":3', 'internal', /JSON/],
    ['an object without an address', '{"version":3,"protocol":"ttrpc"}', 'internal', /no address/],
    ['nothing', '', 'internal', /no address/],
    ['a message', 'cannot start: no such file', 'internal', /no address/],
    ['binary', '\x08\x03\x12\x04unix', 'internal', /no address/],
  ])('is not %s', (_what, answer, kind, message) => {
    const failed = (() => {
      try {
        return parse(answer);
      } catch (e: unknown) {
        return e;
      }
    })();
    expect(failed).toBeInstanceOf(BerthError);
    expect(failed).toMatchObject({ kind, message: expect.stringMatching(message) });
  });

  it('is an address or an error, whatever it is', () => {
    const random = randomSource(0xb007);
    for (let round = 0; round < 500; round++) {
      const answer = random.bytes(random.below(60));
      if (round % 2 === 0) answer.write('{"');
      try {
        expect(parseBootstrap(answer).version).toBe(2);
      } catch (e: unknown) {
        expect(e).toBeInstanceOf(BerthError);
      }
    }
  });
});
