import { describe, expect, it } from 'vitest';
import { Code } from '../../../cri/grpc/codes.ts';
import { requireId } from '../../../cri/ids.ts';
import { toStatus } from '../../../cri/status.ts';
import { BerthError, during, type ErrorKind } from '../../../src/errors.ts';

/** As a Record, so that a new kind does not compile without its code. */
const CODES: Record<ErrorKind, Code> = {
  invalid: Code.INVALID_ARGUMENT,
  notFound: Code.NOT_FOUND,
  alreadyExists: Code.ALREADY_EXISTS,
  precondition: Code.FAILED_PRECONDITION,
  unavailable: Code.UNAVAILABLE,
  registryUnavailable: Code.UNKNOWN,
  signatureInvalid: Code.UNKNOWN,
  deadline: Code.DEADLINE_EXCEEDED,
  cancelled: Code.CANCELLED,
  unimplemented: Code.UNIMPLEMENTED,
  exhausted: Code.RESOURCE_EXHAUSTED,
  permission: Code.PERMISSION_DENIED,
  internal: Code.INTERNAL,
};

describe('toStatus', () => {
  it.each(Object.entries(CODES) as [ErrorKind, Code][])(
    'maps %s, also after steps, to code %i',
    (kind, code) => {
      const e = new BerthError(kind, 'what and why');
      expect(toStatus(e)).toEqual({ code, details: 'what and why' });
      expect(toStatus(during('outer', during('inner', e)))).toEqual({
        code,
        details: 'outer: inner: what and why',
      });
    },
  );

  it.each<[string, unknown, Code, string]>([
    ['an abort', new DOMException('aborted', 'AbortError'), Code.CANCELLED, 'aborted'],
    ['a timeout', new DOMException('too late', 'TimeoutError'), Code.DEADLINE_EXCEEDED, 'too late'],
    ['any other error', new TypeError('x is not a function'), Code.INTERNAL, 'x is not a function'],
    // An own `code` is an errno's, not gRPC's.
    ['a system error', Object.assign(new Error('no'), { code: 'ENOENT' }), Code.INTERNAL, 'no'],
    ['what is no error', 'text', Code.INTERNAL, 'text'],
    ['nothing', undefined, Code.INTERNAL, 'undefined'],
  ])('maps %s', (_name, thrown, code, details) => {
    expect(toStatus(thrown)).toEqual({ code, details });
  });

  it('bounds messages', () => {
    const { details } = toStatus(new Error('x'.repeat(100_000)));
    expect(details).toHaveLength(8193);
    expect(details.endsWith('x…')).toBe(true);
    expect(toStatus(new Error('x'.repeat(8192))).details).toHaveLength(8192);
  });
});

describe('requireId', () => {
  it.each(['a'.repeat(64), 'abc', 'A_b-c.9', 'x'.repeat(128)])('takes %s as it is', (id) => {
    expect(requireId(id, 'container_id')).toBe(id);
  });

  it.each([
    ['', 'container_id: is required'],
    ['../x', /^container_id: is no id/],
    ['a/b', /^container_id: is no id/],
    ['a b', /^container_id: is no id/],
    ['a\n', /^container_id: is no id/],
    ['a\0', /^container_id: is no id/],
    ['é', /^container_id: is no id/],
    ['x'.repeat(129), /^container_id: is no id/],
  ])('refuses %j', (id, message) => {
    expect(() => requireId(id, 'container_id')).toThrow(
      expect.objectContaining({ kind: 'invalid', message: expect.stringMatching(message) }),
    );
  });
});
