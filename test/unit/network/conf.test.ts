import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { atLeast, loadConf, parseConf } from '../../../src/network/conf.ts';

const list = (more: object = {}) =>
  JSON.stringify({ cniVersion: '1.0.0', name: 'net', plugins: [{ type: 'bridge' }], ...more });

describe('parseConf', () => {
  it('reads a list with its flags and each plugin’s enabled capabilities', () => {
    const plugins = [
      { type: 'bridge', mtu: 1400 },
      { type: 'portmap', capabilities: { portMappings: true, bandwidth: false } },
    ];
    expect(parseConf(list({ disableGC: 'TRUE', plugins }), true)).toEqual({
      name: 'net',
      cniVersion: '1.0.0',
      disableGC: true,
      plugins: [
        { type: 'bridge', capabilities: [], conf: plugins[0] },
        { type: 'portmap', capabilities: ['portMappings'], conf: plugins[1] },
      ],
    });
  });

  it('makes a list of one from a single plugin', () => {
    const single = { cniVersion: '0.3.1', name: 'net', type: 'ptp' };
    expect(parseConf(JSON.stringify(single), false)).toMatchObject({
      name: 'net',
      cniVersion: '0.3.1',
      plugins: [{ type: 'ptp', conf: single }],
    });
  });

  it.each([
    [{ cniVersion: '0.4.0' }, '0.4.0'],
    [{ cniVersion: '0.4.0', cniVersions: ['0.3.1', '1.1.0', '1.0.0'] }, '1.1.0'],
    [{ cniVersion: '2.0.0', cniVersions: ['1.0.0', '2.0.0'] }, '1.0.0'],
    [{ cniVersion: '1.1.0', cniVersions: ['1.0.0'] }, '1.1.0'],
  ])('chooses the newest version that both know: %j', (versions, chosen) => {
    expect(parseConf(list(versions), true).cniVersion).toBe(chosen);
  });

  it.each([
    ['', /^is empty$/],
    ['{', /^is not JSON/],
    ['[]', /is not a JSON object/],
    [list({ name: undefined }), /"name" must be/],
    [list({ name: '../etc' }), /"name" must be/],
    [list({ cniVersion: undefined }), /"cniVersion" is missing/],
    [list({ cniVersion: '0.2.0' }), /"cniVersion" is none that berth knows \(0.3.0 to 1.1.0\)/],
    [list({ cniVersions: 'all' }), /"cniVersions" must be a list/],
    [list({ plugins: undefined }), /"plugins" is missing or empty/],
    [list({ plugins: [] }), /"plugins" must be a list of plugins/],
    [list({ plugins: undefined, loadOnlyInlinedPlugins: true }), /"plugins" is missing/],
    [list({ plugins: [{ type: 'a' }, 7] }), /plugins\[1\] is not an object/],
    [list({ plugins: [{}] }), /plugins\[0\]: "type"/],
    [list({ plugins: [{ type: '../../bin/sh' }] }), /plugins\[0\]: "type" must be the name of a program/],
    [list({ plugins: [{ type: '..' }] }), /without a path/],
    [list({ plugins: [{ type: 'a', capabilities: [] }] }), /"capabilities" must be an object/],
    [list({ disableGC: 'maybe' }), /"disableGC" must be true or false/],
  ])('refuses %s', (text, message) => {
    expect(() => parseConf(text, true)).toThrow(message);
  });

  it('tells who put a list into a file for one plugin', () => {
    expect(() => parseConf(list(), false)).toThrow('must end in .conflist');
  });
});

it('compares versions by age, not by text', () => {
  expect(atLeast('1.1.0', '0.4.0')).toBe(true);
  expect(atLeast('0.4.0', '0.4.0')).toBe(true);
  expect(atLeast('0.3.1', '0.4.0')).toBe(false);
});

describe('loadConf', () => {
  let dir: string;
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'berth-conf-'));
  });
  afterEach(() => rm(dir, { recursive: true }));
  const put = (name: string, text: string) => writeFile(join(dir, name), text);

  it('takes the first valid file in byte order and says why those before it are not', async () => {
    await put('05-notes.txt', 'ignored');
    await put('10-empty.conf', '');
    await put('10-Zed.conflist', list({ plugins: [] }));
    await put('20-single.json', JSON.stringify({ cniVersion: '1.0.0', name: 'single', type: 'ptp' }));
    await put('30-late.conflist', list());
    expect(await loadConf(dir)).toMatchObject({
      file: join(dir, '20-single.json'),
      network: { name: 'single' },
      skipped: [
        { file: join(dir, '10-Zed.conflist'), reason: expect.stringContaining('"plugins"') },
        { file: join(dir, '10-empty.conf'), reason: 'is empty' },
      ],
    });
  });

  it('finds nothing in a directory that does not exist', async () => {
    expect(await loadConf(join(dir, 'none'))).toEqual({ skipped: [] });
  });

  it('skips what is too large, a directory, or a FIFO', async () => {
    await put('1.conflist', `${' '.repeat(1 << 20)}${list()}`);
    await mkdir(join(dir, '2.conflist'));
    await promisify(execFile)('mkfifo', [join(dir, '3.conflist')]);
    const { network, skipped } = await loadConf(dir);
    expect(network).toBeUndefined();
    expect(skipped.map((s) => s.reason)).toEqual(['is larger than 1048576 bytes', 'is not a regular file']);
  });

  it('adds the plugins of the folder named after the network, unless told not to (CNI 1.1)', async () => {
    await mkdir(join(dir, 'net'));
    await put('net/20-tuning.conf', '{"type":"tuning"}');
    await put('net/10-portmap.conf', '{"type":"portmap"}');
    await put('10.conflist', list({ cniVersion: '1.1.0' }));
    const types = async () => (await loadConf(dir)).network?.plugins.map((p) => p.type);
    expect(await types()).toEqual(['bridge', 'portmap', 'tuning']);
    await put('10.conflist', list({ cniVersion: '1.1.0', loadOnlyInlinedPlugins: true }));
    expect(await types()).toEqual(['bridge']);
    await put('10.conflist', list({ cniVersion: '1.1.0' }));
    await put('net/20-tuning.conf', '{}');
    expect((await loadConf(dir)).skipped[0]?.reason).toContain('net/20-tuning.conf: the file: "type"');
  });
});
