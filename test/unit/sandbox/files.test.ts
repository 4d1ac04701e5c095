import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Paths, type SandboxPaths } from '../../../src/paths.ts';
import { resolvConf, writeHosts, writeSandboxFiles } from '../../../src/sandbox/files.ts';
import { listMounts } from '../../../src/sys/mount.ts';
import { namespaces, sandboxConfig } from '../spec/configs.ts';

describe('resolvConf', () => {
  it.each([
    [
      { servers: ['10.0.0.10', 'fd00::a'], searches: ['a.svc', 'svc'], options: ['ndots:5', 'edns0'] },
      'search a.svc svc\nnameserver 10.0.0.10\nnameserver fd00::a\noptions ndots:5 edns0\n',
    ],
    [{ servers: ['10.0.0.10'], searches: [], options: [] }, 'nameserver 10.0.0.10\n'],
    [{ servers: [], searches: ['svc'], options: [] }, 'search svc\n'],
    [{ servers: [], searches: [], options: ['ndots:5'] }, 'options ndots:5\n'],
    [{ servers: [], searches: [], options: [] }, ''],
  ])('%j', (dns, text) => {
    expect(resolvConf(dns)).toBe(text);
  });
});

describe('files of a sandbox', () => {
  let dir: string;
  let paths: SandboxPaths;
  beforeEach(async () => {
    dir = await mkdtemp(path.join(tmpdir(), 'berth-sandbox-'));
    paths = new Paths(path.join(dir, 'r'), path.join(dir, 's')).sandbox('a'.repeat(64));
  });
  afterEach(() => rm(dir, { recursive: true }));
  const read = (file: string) => readFile(file, 'utf8');
  /** With the host's IPC there is no /dev/shm to mount. */
  const hostIpc = { namespaces: namespaces({ ipc: 'node' }) };
  const dns = { servers: [], searches: [], options: [] };

  it('are made without a mount when the pod has the host’s IPC', async () => {
    const config = sandboxConfig({ dns: { ...dns, servers: ['10.0.0.10'] } }, hostIpc);
    await writeSandboxFiles(paths, config, 'web');
    expect(await read(paths.hostname)).toBe('web\n');
    expect(await read(paths.resolvConf)).toBe('nameserver 10.0.0.10\n');
    expect(listMounts(dir)).toEqual([]);
  });

  it.each([
    ['none', {}],
    ['an empty one', { dns }],
  ])('have the host’s resolv.conf with %s dns_config', async (_name, over) => {
    await writeSandboxFiles(paths, sandboxConfig(over, hostIpc), 'web');
    expect(await read(paths.resolvConf)).toBe(await read('/etc/resolv.conf').catch(() => ''));
  });

  it.each([
    ['one address', 'web', ['10.0.0.2'], '10.0.0.2\tweb\n'],
    ['two families', 'web', ['10.0.0.2', 'fd00::2'], '10.0.0.2\tweb\nfd00::2\tweb\n'],
    ['no hostname', '', ['10.0.0.2'], ''],
    ['no address', 'web', [], ''],
  ])('have a hosts file for %s', async (_name, hostname, ips, own) => {
    await writeSandboxFiles(paths, sandboxConfig({}, hostIpc), hostname);
    await writeHosts(paths.hosts, sandboxConfig({ hostname }), ips);
    const local = '127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n';
    expect(await read(paths.hosts)).toBe(local + own);
  });

  it('have the node’s hosts with the node’s network', async () => {
    const config = sandboxConfig({}, { namespaces: namespaces({ network: 'node', ipc: 'node' }) });
    await writeSandboxFiles(paths, config, '');
    await writeHosts(paths.hosts, config, []);
    expect(await read(paths.hosts)).toBe(await read('/etc/hosts').catch(() => ''));
  });
});
