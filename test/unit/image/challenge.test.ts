import { expect, it } from 'vitest';
import { parseChallenges } from '../../../src/image/registry/challenge.ts';

function parse(...values: string[]): unknown {
  return parseChallenges(values).map(({ scheme, parameters }) => [scheme, Object.fromEntries(parameters)]);
}

it('reads schemes and parameters', () => {
  expect(parse('Bearer realm="https://a/t?x=1,2",service="s",scope="repository:a/b:pull,push"')).toEqual([
    ['bearer', { realm: 'https://a/t?x=1,2', service: 's', scope: 'repository:a/b:pull,push' }],
  ]);
  expect(parse('BASIC Realm=plain')).toEqual([['basic', { realm: 'plain' }]]);
  expect(parse('Basic realm="with \\"quotes\\""')).toEqual([['basic', { realm: 'with "quotes"' }]]);
});

it('reads several challenges, in one header or in many', () => {
  const both = [
    ['negotiate', {}],
    ['basic', { realm: 'r' }],
    ['bearer', { realm: 'x' }],
  ];
  expect(parse('Negotiate, Basic realm="r", Bearer realm="x"')).toEqual(both);
  expect(parse('Negotiate', 'Basic realm="r"', 'Bearer realm="x"')).toEqual(both);
});

it('keeps what came before what cannot be read', () => {
  expect(parse('Basic realm="r", "stray"')).toEqual([['basic', { realm: 'r' }]]);
  expect(parse('realm="r"')).toEqual([]);
  expect(parse('Basic realm="unclosed')).toEqual([['basic', {}]]);
  expect(parse('')).toEqual([]);
});

it('is quick with hostile headers', () => {
  const began = performance.now();
  parse('a='.repeat(100_000), ' '.repeat(100_000), 'Basic '.repeat(100_000));
  expect(performance.now() - began).toBeLessThan(5000);
});
