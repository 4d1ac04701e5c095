import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { kindOf } from '../../../src/errors.ts';
import { parseSeccompProfile, resolveSeccomp } from '../../../src/spec/seccomp.ts';
import { loadSeccomp } from '../../../src/spec/seccomp-load.ts';
import { UNCONFINED } from './configs.ts';

const rule = (name: string, over: object = {}): object => ({
  names: [name],
  action: 'SCMP_ACT_ALLOW',
  ...over,
});

const PROFILE = JSON.stringify({
  defaultAction: 'SCMP_ACT_ERRNO',
  defaultErrno: 'ENOSYS',
  defaultErrnoRet: 1,
  archMap: [
    { architecture: 'SCMP_ARCH_X86_64', subArchitectures: ['SCMP_ARCH_X86', 'SCMP_ARCH_X32'] },
    { architecture: 'SCMP_ARCH_AARCH64', subArchitectures: null },
  ],
  syscalls: [
    rule('always', { includes: {}, excludes: {} }),
    { name: 'old', action: 'SCMP_ACT_ERRNO', errnoRet: 5 },
    rule('onArm', { includes: { arches: ['arm64'] } }),
    rule('notOnArm', { excludes: { arches: ['arm64'] } }),
    rule('withAdmin', { includes: { caps: ['CAP_SYS_ADMIN'] } }),
    rule('withoutAdmin', { excludes: { caps: ['CAP_SYS_ADMIN'] } }),
    rule('since4.8', { includes: { minKernel: '4.8' } }),
    rule('since6.10', { includes: { minKernel: '6.10' } }),
    rule('masked', { args: [{ index: 1, value: 18446744073709551615n.toString(), op: 'SCMP_CMP_EQ' }] }),
  ],
}).replace('"18446744073709551615"', '18446744073709551615');

const amd64 = { goArch: 'amd64', kernel: [6, 9] as const, x32: true };
const names = (caps: string[], host: Parameters<typeof resolveSeccomp>[2]): string[] =>
  resolveSeccomp(parseSeccompProfile(PROFILE, 'p'), caps, host).syscalls.flatMap((s) => s.names);

describe('a profile in the format of Docker and containers-common', () => {
  test('rules are chosen by capabilities, architecture and kernel', () => {
    const base = ['always', 'old', 'notOnArm', 'withoutAdmin', 'since4.8', 'masked'];
    expect(names([], amd64)).toEqual(base);
    expect(names(['CAP_SYS_ADMIN'], amd64)).toEqual(
      base.map((n) => (n === 'withoutAdmin' ? 'withAdmin' : n)),
    );
    expect(names([], { goArch: 'arm64', kernel: [6, 10], x32: false })).toEqual([
      'always',
      'old',
      'onArm',
      'withoutAdmin',
      'since4.8',
      'since6.10',
      'masked',
    ]);
  });

  test('becomes what the OCI specification knows', () => {
    const filter = resolveSeccomp(parseSeccompProfile(PROFILE, 'p'), [], amd64);
    expect(filter).toMatchObject({
      defaultAction: 'SCMP_ACT_ERRNO',
      defaultErrnoRet: 38,
      architectures: ['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86', 'SCMP_ARCH_X32'],
    });
    expect(filter.syscalls[1]).toEqual({ names: ['old'], action: 'SCMP_ACT_ERRNO', errnoRet: 5 });
    expect(filter.syscalls.at(-1)?.args).toEqual([
      { index: 1, value: 18446744073709551615n, valueTwo: 0, op: 'SCMP_CMP_EQ' },
    ]);
  });

  test('is without x32 where the kernel is', () => {
    const { architectures } = resolveSeccomp(parseSeccompProfile(PROFILE, 'p'), [], { ...amd64, x32: false });
    expect(architectures).toEqual(['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86']);
  });

  test("the OCI's own format keeps its architectures and flags", () => {
    const text = JSON.stringify({
      defaultAction: 'SCMP_ACT_LOG',
      architectures: ['SCMP_ARCH_X86_64'],
      flags: ['SECCOMP_FILTER_FLAG_LOG'],
    });
    expect(resolveSeccomp(parseSeccompProfile(text, 'p'), [], amd64)).toEqual({
      defaultAction: 'SCMP_ACT_LOG',
      architectures: ['SCMP_ARCH_X86_64'],
      flags: ['SECCOMP_FILTER_FLAG_LOG'],
      syscalls: [],
    });
  });

  test.each([
    ['', /p: not JSON/],
    ['[]', /p: profile must be an object/],
    ['{}', /defaultAction must be a string/],
    ['{"defaultAction":"ALLOW"}', /defaultAction must be an action/],
    ['{"defaultAction":"SCMP_ACT_ALLOW","syscalls":{}}', /syscalls must be a list/],
    [
      '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":[1],"action":"SCMP_ACT_LOG"}]}',
      /syscalls\[0\]\.names/,
    ],
    ['{"defaultAction":"SCMP_ACT_ERRNO","defaultErrno":"EWHAT"}', /defaultErrno must be the name/],
  ])('%s is refused', (text, message) => {
    expect(() => parseSeccompProfile(text, 'p')).toThrow(message);
  });
});

describe('loadSeccomp', () => {
  let dir = '';
  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'berth-seccomp-'));
    await writeFile(join(dir, 'p.json'), PROFILE);
    await writeFile(join(dir, 'big.json'), '');
    await truncate(join(dir, 'big.json'), 1024 * 1024 + 1);
  });
  afterAll(() => rm(dir, { recursive: true }));

  const runtimeDefault = { type: 'runtimeDefault', localhostRef: '' } as const;
  const localhost = (ref: string) => ({ type: 'localhost', localhostRef: ref }) as const;

  test('no filter for unconfined and privileged containers', async () => {
    expect(await loadSeccomp(UNCONFINED, false, 'f')).toBeUndefined();
    expect(await loadSeccomp(localhost('/nonesuch'), true, 'f')).toBeUndefined();
  });

  test('reads the default and a profile of the host', async () => {
    const wanted = parseSeccompProfile(PROFILE, 'p');
    expect(await loadSeccomp(runtimeDefault, false, 'f', join(dir, 'p.json'))).toEqual(wanted);
    expect(await loadSeccomp(localhost(join(dir, 'p.json')), false, 'f')).toEqual(wanted);
  });

  test('without a default profile nothing runs unfiltered', async () => {
    const e: unknown = await loadSeccomp(runtimeDefault, false, 'f', join(dir, 'none')).catch(
      (e: unknown) => e,
    );
    expect(kindOf(e)).toBe('precondition');
    expect(String(e)).toContain('golang-github-containers-common');
  });

  test.each([
    ['p.json', /^sec\.localhost_ref: must be an absolute path/],
    ['/nonesuch', /^sec\.localhost_ref: ENOENT.*\/nonesuch/],
    ['DIR', /not a regular file/],
    ['DIR/big.json', /at most 1 MiB/],
  ])('%s is refused', async (ref, message) => {
    const profile = localhost(ref.replace('DIR', dir));
    const e: unknown = await loadSeccomp(profile, false, 'sec').catch((e: unknown) => e);
    expect(kindOf(e)).toBe('invalid');
    expect((e as Error).message).toMatch(message);
  });
});
