import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { afterEach, describe, expect, it } from 'vitest';
import {
  CgroupError,
  type CgroupManager,
  cgroupName,
  detectCgroups,
  removeIfEmpty,
} from '../../cgroups/index.ts';

const cgroups = detectCgroups();
const manager: CgroupManager = cgroups.manager('cgroupfs');
const v1 = cgroups.mode !== 'v2';

interface Scratch {
  readonly path: string;
  readonly parent: string;
  /** Directories that did not exist before, in all hierarchies. */
  readonly made: string[];
}

const open: { scratch: Scratch[]; children: ChildProcess[] } = { scratch: [], children: [] };

async function scratch(): Promise<Scratch> {
  const id = randomBytes(32).toString('hex');
  const parent = `/berth-test-${randomBytes(6).toString('hex')}`;
  const { path } = cgroupName({ driver: 'cgroupfs', parent: `${parent}/pod1`, id, prefix: 'berth' });
  const entry = { path, parent, made: manager.missing(path) };
  open.scratch.push(entry);
  await manager.create(path);
  return entry;
}

async function start(path: string, script: string): Promise<ChildProcess> {
  // The shell waits for a line, so it runs nothing before it is inside the cgroup.
  const child = spawn('/bin/sh', ['-c', `read -r _; ${script}`], { stdio: ['pipe', 'pipe', 'ignore'] });
  open.children.push(child);
  if (child.pid === undefined) throw new Error('sh did not start');
  await manager.attach(path, child.pid);
  child.stdin?.end('go\n');
  return child;
}

async function until(condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 20_000;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error('condition not met in 20 s');
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

afterEach(async () => {
  for (const { path, parent, made } of open.scratch.splice(0)) {
    await manager.thaw(path);
    await manager.kill(parent);
    await manager.remove(parent);
    expect(made.filter((dir) => existsSync(dir))).toEqual([]);
  }
  for (const child of open.children.splice(0)) {
    // One that could not be put into its cgroup still waits for its line.
    child.kill('SIGKILL');
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  }
});

describe('a real cgroup', () => {
  it('is made in every hierarchy and removed from every one', async () => {
    const { path, parent, made } = await scratch();
    expect(made.length).toBeGreaterThan(0);
    expect(made.every((dir) => existsSync(dir))).toBe(true);
    expect(manager.missing(path)).toEqual([]);
    expect(manager.exists(path)).toBe(true);
    await manager.remove(parent);
    expect(manager.exists(path)).toBe(false);
    expect(manager.details(path, [])).toBeUndefined();
    await manager.remove(parent);
    await manager.kill(parent);
  });

  it('is made for a process that joins it, and can go when that has left it', async () => {
    const { path, parent } = await scratch();
    const child = spawn('sleep', ['600'], { stdio: 'ignore' });
    open.children.push(child);
    const pid = child.pid ?? 0;
    await manager.join(`${path}/own`, pid);
    expect(manager.procs(path)).toEqual([pid]);
    await manager.leave(pid);
    await manager.remove(parent);
    expect(child.exitCode).toBeNull();
  });

  it('counts what its processes use', async () => {
    const { path } = await scratch();
    const before = BigInt(Date.now()) * 1_000_000n;
    const child = await start(path, 'i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; exec sleep 600');
    await until(() => readFileSync(`/proc/${child.pid}/comm`, 'utf8').trim() === 'sleep');
    const stats = manager.details(path, []);
    if (stats === undefined) throw new Error('no stats');
    expect(stats.timestampNs).toBeGreaterThanOrEqual(before);
    expect(stats.cpu.usageNs).toBeGreaterThan(1_000_000n);
    expect(stats.cpu.userNs).toBeGreaterThan(0n);
    expect(stats.memory.usageBytes).toBeGreaterThan(0n);
    expect(stats.memory.workingSetBytes).toBeLessThanOrEqual(stats.memory.usageBytes ?? 0n);
    // The kernel may hold back per-CPU counts of memory.stat for up to two seconds.
    await until(() => (manager.details(path, [])?.memory.pageFaults ?? 0n) > 0n);
    expect(stats.memory.limitBytes).toBeUndefined();
    expect(stats.memory.availableBytes).toBeUndefined();
    expect(stats.pids).toEqual({ current: 1n, limit: undefined });
    expect(stats.oomKills).toBe(0n);
    expect(manager.procs(path)).toEqual([child.pid]);
  });

  it('takes limits, growing and shrinking, and reads them back', async () => {
    const { path } = await scratch();
    const mib = 1024n * 1024n;
    for (const size of [64n * mib, 256n * mib, 32n * mib]) {
      await manager.update(path, { memoryLimitBytes: size, memorySwapLimitBytes: size });
      expect(manager.readResources(path)).toMatchObject({
        memoryLimitBytes: size,
        memorySwapLimitBytes: size,
      });
    }
    // Memory alone past the old sum of memory and swap.
    await manager.update(path, { memoryLimitBytes: 128n * mib });
    expect(manager.readResources(path).memoryLimitBytes).toBe(128n * mib);
    await manager.update(path, { cpuShares: 1024n, cpuPeriod: 50_000n, cpuQuota: 20_000n, pidsLimit: 17n });
    expect(manager.readResources(path)).toMatchObject({
      cpuShares: 1024n,
      cpuPeriod: 50_000n,
      cpuQuota: 20_000n,
      pidsLimit: 17n,
    });
    await manager.update(path, { cpusetCpus: '0' });
    expect(manager.readResources(path).cpusetCpus).toBe('0');
    await manager.update(path, { cpuQuota: -1n, pidsLimit: -1n, memoryLimitBytes: -1n });
    const read = manager.readResources(path);
    expect([read.cpuQuota, read.pidsLimit, read.memoryLimitBytes]).toEqual([-1n, -1n, -1n]);
  });

  it('keeps the ratio of quota to period legal while both change under a limited parent', async () => {
    const { path } = await scratch();
    const pod = path.slice(0, path.lastIndexOf('/'));
    await manager.update(pod, { cpuPeriod: 100_000n, cpuQuota: 50_000n });
    await manager.update(path, { cpuPeriod: 100_000n, cpuQuota: 50_000n });
    // 50 ms of 50 ms would be twice the parent's share, were the period written alone.
    await manager.update(path, { cpuPeriod: 50_000n, cpuQuota: 25_000n });
    expect(manager.readResources(path)).toMatchObject({ cpuPeriod: 50_000n, cpuQuota: 25_000n });
  });

  it('refuses a limit below what is in use', async () => {
    const { path } = await scratch();
    const child = await start(
      path,
      `exec ${process.execPath} -e "globalThis.b=Buffer.alloc(96<<20,1);console.log(1);setInterval(()=>{},1e6)"`,
    );
    if (child.stdout === null) throw new Error('no stdout');
    await once(child.stdout, 'data');
    await expect(
      manager.update(path, { memoryLimitBytes: 8n << 20n, memorySwapLimitBytes: 8n << 20n }),
    ).rejects.toMatchObject({
      name: 'CgroupError',
      code: 'EBUSY',
    });
    expect(child.exitCode).toBeNull();
  });

  it('counts OOM kills, also those of a child cgroup', async () => {
    const { path } = await scratch();
    const inner = `${path}/inner`;
    await manager.create(inner);
    await manager.update(path, { memoryLimitBytes: 16n << 20n, memorySwapLimitBytes: 16n << 20n });
    const child = await start(inner, `exec ${process.execPath} -e "Buffer.alloc(100<<20, 1)"`);
    const [, signal] = await once(child, 'exit');
    expect(signal).toBe('SIGKILL');
    expect(manager.oomKills(path)).toBe(1n);
    expect(manager.details(path, [])?.oomKills).toBe(1n);
  });

  it('freezes, stays killable while frozen, and thaws', async () => {
    const { path } = await scratch();
    await start(path, 'while :; do :; done');
    await manager.freeze(path);
    const frozenAt = manager.details(path, [])?.cpu.usageNs;
    const again = manager.details(path, [])?.cpu.usageNs;
    expect(again).toBe(frozenAt);
    await manager.thaw(path);
    await until(() => (manager.details(path, [])?.cpu.usageNs ?? 0n) > (frozenAt ?? 0n));
    await manager.freeze(path);
    await manager.kill(path);
    expect(manager.procs(path)).toEqual([]);
  });

  it('kills a tree of processes that forks while it is being killed', async () => {
    const { path } = await scratch();
    // Both are leaves: on v2 no cgroup has processes and children with controllers.
    const [outer, inner] = [`${path}/o`, `${path}/a/b`];
    for (const leaf of [outer, inner]) await manager.create(leaf);
    await manager.update(path, { pidsLimit: 40n });
    await start(outer, 'while :; do sleep 0.01 & done');
    await start(inner, 'trap "" TERM; while :; do (sleep 0.01; sleep 0.01) & sleep 0.01; done');
    await until(() => manager.procs(path).length > 4);
    await manager.kill(path);
    expect(manager.procs(path)).toEqual([]);
  });

  it('gives up removing a cgroup that is in use when the deadline passes, and says which', async () => {
    const { path } = await scratch();
    await start(path, 'exec sleep 600');
    const refused = manager.remove(path, AbortSignal.timeout(100));
    await expect(refused).rejects.toBeInstanceOf(CgroupError);
    await expect(refused).rejects.toMatchObject({ code: 'ETIMEDOUT' });
    await expect(refused).rejects.toThrow(path);
  });

  it('leaves alone what it made when another uses it, and takes it later', async () => {
    const { path, made } = await scratch();
    const other = `${path.slice(0, path.lastIndexOf('/'))}/other`;
    await manager.create(other);
    const inUse = await removeIfEmpty(made);
    expect(inUse.length).toBeGreaterThan(0);
    expect(inUse.every((dir) => existsSync(dir))).toBe(true);
    expect(manager.exists(path)).toBe(false);
    await manager.remove(other);
    expect(await removeIfEmpty(inUse)).toEqual([]);
  });

  it('refuses to touch the root, and its own cgroup', async () => {
    await expect(manager.remove('/')).rejects.toMatchObject({ code: 'EINVAL' });
    await expect(manager.kill('//.')).rejects.toMatchObject({ code: 'EINVAL' });
    await expect(manager.kill('/a/../..')).rejects.toMatchObject({ code: 'EINVAL' });
  });

  it.runIf(v1)('is joined in all hierarchies', async () => {
    const { path } = await scratch();
    const child = await start(path, 'exec sleep 600');
    const lines = readFileSync(`/proc/${child.pid}/cgroup`, 'utf8').trim().split('\n');
    expect(lines.filter((line) => !line.endsWith(`:${path}`))).toEqual([]);
    expect(readdirSync('/sys/fs/cgroup').length).toBeGreaterThan(0);
  });
});
