import { describe, expect, it } from 'vitest';
import { parseArguments } from '../../../../src/vm/shim/arguments.ts';
import { bootstrap } from '../../../../src/vm/shim/start.ts';

describe('the command line of a shim', () => {
  it('is read as Go reads flags', () => {
    const expected = {
      ...{ verb: 'delete', namespace: 'k8s.io', id: 'abc', address: '/run/c.sock' },
      ...{ publishBinary: '/usr/bin/containerd', bundle: '/b', debug: true },
    };
    const line = '-namespace k8s.io -id abc -address /run/c.sock -publish-binary /usr/bin/containerd';
    expect(parseArguments([...line.split(' '), '-bundle', '/b', '-debug', 'delete'])).toEqual(expected);
    const other =
      '--namespace=k8s.io --id=abc --address=/run/c.sock -publish-binary=/usr/bin/containerd --bundle=/b';
    expect(parseArguments([...other.split(' '), '-debug=true', '-socket', 'x', 'delete'])).toEqual(expected);
  });

  it('asks for the version without any name', () => {
    expect(parseArguments(['-v']).verb).toBe('version');
    expect(parseArguments(['-info']).verb).toBe('info');
  });

  it.each([
    [['-namespace', 'n', '-id', 'i'], /the verb must be start or delete/],
    [['-namespace', 'n', '-id', 'i', 'stop'], /"stop": the verb/],
    [['-namespace', 'n', 'start'], /^-id "": no name/],
    [['-namespace', '../n', '-id', 'i', 'start'], /^-namespace "..\/n": no name/],
    [['-namespace'], /^-namespace: a value must follow/],
    [['-color', 'start'], /^-color: there is no such flag/],
  ])('%j is refused', (argv, message) => {
    expect(() => parseArguments(argv)).toThrow(message);
  });
});

it('tells its address in the form that the caller knows', () => {
  expect(bootstrap('unix:///a', undefined)).toBe('unix:///a');
  expect(bootstrap('unix:///a', '2')).toBe('unix:///a');
  expect(JSON.parse(bootstrap('unix:///a', '3'))).toEqual({
    version: 3,
    address: 'unix:///a',
    protocol: 'ttrpc',
  });
});
