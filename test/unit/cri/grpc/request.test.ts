import { describe, expect, it } from 'vitest';
import type { HeaderField } from '../../../../cri/grpc/hpack/static-table.ts';
import { Malformed, NotGrpc, readHeaders } from '../../../../cri/grpc/request.ts';

const usual: readonly HeaderField[] = [
  [':method', 'POST'],
  [':scheme', 'http'],
  [':path', '/a.B/C'],
  [':authority', 'localhost'],
  ['content-type', 'application/grpc'],
  ['te', 'trailers'],
];
const without = (name: string) => usual.filter(([n]) => n !== name);
const withValue = (name: string, value: string): HeaderField[] => [...without(name), [name, value]];
const first = (name: string, value: string): HeaderField[] => [[name, value], ...without(name)];

describe('readHeaders', () => {
  it('reads path and timeout', () => {
    expect(readHeaders(usual)).toEqual({ path: '/a.B/C', timeoutMs: undefined });
    expect(readHeaders(withValue('grpc-timeout', '5S'))).toEqual({ path: '/a.B/C', timeoutMs: 5_000 });
  });

  it.each(['application/grpc', 'application/grpc+proto', 'application/grpc;x=y'])('takes %s', (type) => {
    expect(readHeaders(withValue('content-type', type)).path).toBe('/a.B/C');
  });

  it.each<[string, readonly HeaderField[], number]>([
    ['GET', first(':method', 'GET'), 405],
    ['no content type', without('content-type'), 415],
    ['JSON', withValue('content-type', 'application/json'), 415],
    ['another thing with that beginning', withValue('content-type', 'application/grpc-web'), 415],
    ['gRPC in JSON', withValue('content-type', 'application/grpc+json'), 415],
  ])('answers %s with an HTTP status', (_what, fields, httpStatus) => {
    expect(() => readHeaders(fields)).toThrow(expect.objectContaining({ httpStatus }));
    expect(() => readHeaders(fields)).toThrow(NotGrpc);
  });

  it.each<[string, readonly HeaderField[]]>([
    ['no path', without(':path')],
    ['no scheme', without(':scheme')],
    ['two paths', [[':path', '/x'], ...usual]],
    ['a pseudo-header of a response', [[':status', '200'], ...usual]],
    ['a pseudo-header behind the others', withValue(':path', '/x')],
    ['a name in capitals', withValue('User-Agent', 'x')],
    ['a name with a space', withValue('a b', 'x')],
    ['no name', withValue('', 'x')],
  ])('finds %s to be no request', (_what, fields) => {
    expect(() => readHeaders(fields)).toThrow(Malformed);
  });

  it('refuses a timeout that is none', () => {
    expect(() => readHeaders(withValue('grpc-timeout', 'soon'))).toThrow(
      expect.objectContaining({ kind: 'internal' }),
    );
  });
});
