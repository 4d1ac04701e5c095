import { describe, expect, test } from 'vitest';
import { execProcess, processArgs, processCwd, processEnv } from '../../../src/spec/process.ts';
import type { Process } from '../../../src/spec/types.ts';
import { containerConfig, imageConfig } from './configs.ts';

describe('processArgs follows the table of Kubernetes', () => {
  test.each([
    // entrypoint, cmd, command, args → argv
    [['/ep'], ['c'], [], [], ['/ep', 'c']],
    [['/ep'], ['c'], ['/x'], [], ['/x']],
    [['/ep'], ['c'], [], ['a'], ['/ep', 'a']],
    [['/ep'], ['c'], ['/x'], ['a'], ['/x', 'a']],
    [[], ['c', 'd'], [], [], ['c', 'd']],
    [[''], ['c'], [], [], ['c']],
    [[''], ['c'], [], ['a', 'b'], ['a', 'b']],
  ])('%j %j + %j %j', (entrypoint, cmd, command, args, argv) => {
    expect(processArgs(containerConfig({ command, args }), imageConfig({ entrypoint, cmd }))).toEqual(argv);
  });

  test('nothing to run is refused', () => {
    const image = imageConfig({ entrypoint: [], cmd: [] });
    expect(() => processArgs(containerConfig(), image)).toThrow(/^config\.command: is empty/);
  });

  test('NUL is refused', () => {
    expect(() => processArgs(containerConfig({ command: ['a\0b'] }), imageConfig())).toThrow(/NUL/);
  });
});

describe('processEnv', () => {
  const env = (over: Parameters<typeof containerConfig>[0], image: string[] = []): string[] =>
    processEnv(containerConfig(over), imageConfig({ env: image }), 'web');

  test('later values replace earlier ones in place', () => {
    expect(env({ envs: [{ key: 'A', value: '2' }] }, ['A=1', 'B=x=y', 'HOSTNAME=image'])).toEqual([
      'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
      'HOSTNAME=image',
      'A=2',
      'B=x=y',
    ]);
  });

  test('the image may set PATH, a terminal has a type', () => {
    expect(env({ tty: true }, ['PATH=/opt'])).toEqual(['PATH=/opt', 'TERM=xterm', 'HOSTNAME=web']);
  });

  test('entries of the image without "=" mean nothing', () => {
    expect(env({}, ['PATH', '=x'])).toHaveLength(2);
  });

  test.each(['', 'A=B'])('the name %j is refused', (key) => {
    expect(() => env({ envs: [{ key, value: '' }] })).toThrow(/^config\.envs\[0\]\.key/);
  });
});

test.each([
  ['', '', '/'],
  ['', '/srv', '/srv'],
  ['', 'srv', '/srv'],
  ['/w', '/srv', '/w'],
])('processCwd of %j and the image %j', (workingDir, image, cwd) => {
  expect(processCwd(containerConfig({ workingDir }), imageConfig({ workingDir: image }))).toBe(cwd);
});

test('a relative working_dir is refused', () => {
  expect(() => processCwd(containerConfig({ workingDir: 'w' }), imageConfig())).toThrow(
    /config\.working_dir/,
  );
});

test('execProcess keeps who and where, and gives a terminal its type once', () => {
  const base = { args: ['a'], env: ['X=1'], cwd: '/w', terminal: false } as unknown as Process;
  expect(execProcess(base, ['sh'], true)).toMatchObject({
    args: ['sh'],
    env: ['X=1', 'TERM=xterm'],
    cwd: '/w',
    terminal: true,
  });
  expect(execProcess({ ...base, env: ['TERM=vt100'] }, ['sh'], true).env).toEqual(['TERM=vt100']);
  expect(execProcess(base, ['sh'], false).env).toEqual(['X=1']);
});
