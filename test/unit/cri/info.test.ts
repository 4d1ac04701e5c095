import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readSpec, runtimeInfo, verboseInfo } from '../../../cri/info.ts';
import { parseConfig } from '../../../src/config/load.ts';
import type { Services } from '../../../src/services.ts';

describe('verboseInfo', () => {
  it('is JSON under one key, whose integers are whole', () => {
    const { info, ...others } = verboseInfo({ pid: 7, limit: 9_223_372_036_854_775_807n, none: undefined });
    expect(others).toEqual({});
    expect(info).toBe('{"pid":7,"limit":9223372036854775807}');
  });
});

describe('readSpec', () => {
  let dir: string;
  beforeAll(async () => {
    dir = await mkdtemp(path.join(tmpdir(), 'berth-info-'));
  });
  afterAll(() => rm(dir, { recursive: true }));

  it.each([
    [
      'a bundle’s',
      '{"linux":{"limit":9223372036854775807}}',
      { linux: { limit: 9_223_372_036_854_775_807n } },
    ],
    ['one half written', '{"linux":', null],
  ])('reads %s', async (_name, text, expected) => {
    const file = path.join(dir, 'config.json');
    await writeFile(file, text);
    expect(await readSpec(file)).toEqual(expected);
  });

  it('is null where the bundle is gone', async () => {
    expect(await readSpec(path.join(dir, 'gone/config.json'))).toBeNull();
    await expect(readSpec(dir)).rejects.toMatchObject({ code: 'EISDIR' });
  });
});

describe('runtimeInfo', () => {
  const config = parseConfig('default_runtime = "crun"\n[runtimes.crun]\npath = "/crun"', 'x');
  const s = { config } as Services;
  it.each([
    ['', { runtimeHandler: 'crun', runtimeType: 'oci', runtimeOptions: { path: '/crun' } }],
    ['crun', { runtimeHandler: 'crun', runtimeType: 'oci', runtimeOptions: { path: '/crun' } }],
    // Configured when the pod was made, and not any more.
    ['gone', { runtimeHandler: 'gone', runtimeType: null, runtimeOptions: null }],
    ['constructor', { runtimeHandler: 'constructor', runtimeType: null, runtimeOptions: null }],
  ])('tells of handler %j', (handler, expected) => {
    expect(runtimeInfo(s, handler)).toEqual(expected);
  });
});
