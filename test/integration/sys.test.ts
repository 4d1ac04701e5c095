import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  realpathSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { hostname, networkInterfaces, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as setImmediatePromise } from 'node:timers/promises';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { EPOLLIN, eventfd } from '../../src/sys/epoll.ts';
import { listMounts, MS_SHARED, mount, mountOverlay, unmount } from '../../src/sys/mount.ts';
import {
  namespaceInode,
  pinNamespaces,
  prepareNamespaceDir,
  readNetDev,
  releaseNamespaceDir,
  setHostname,
  unpinNamespaces,
  withNamespace,
} from '../../src/sys/namespaces.ts';
import { Poller } from '../../src/sys/poller.ts';
import { identify, isAlive, signal } from '../../src/sys/process-identity.ts';

const pollerModule = new URL('../../src/sys/poller.ts', import.meta.url).href;
const identityModule = new URL('../../src/sys/process-identity.ts', import.meta.url).href;

let dir: string;

beforeEach(() => {
  dir = realpathSync(mkdtempSync(join(tmpdir(), 'berth-sys-')));
});

afterEach(() => {
  const left = listMounts(dir).map((m) => m.mountpoint);
  for (const mountpoint of left.toReversed()) unmount(mountpoint, { lazy: true });
  rmSync(dir, { recursive: true, force: true });
  expect(left).toEqual([]);
});

/** What this process has open below `root`. */
function openPathsBelow(root: string): string[] {
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      const path = readlinkSync(`/proc/self/fd/${fd}`);
      return path.startsWith(root) ? [path] : [];
    } catch {
      return []; // The descriptor of the listing itself.
    }
  });
}

describe('namespaces', () => {
  const kinds = ['net', 'uts', 'ipc'] as const;
  const hostInodes = () => kinds.map((k) => namespaceInode(`/proc/thread-self/ns/${k}`));

  it('pins namespaces that differ from the host’s, runs init inside and comes back', () => {
    const before = hostInodes();
    const hostName = hostname();
    const pins = join(dir, 'pod');
    pinNamespaces(pins, kinds, () => {
      setHostname('inside');
      writeFileSync('/proc/sys/net/ipv4/ip_unprivileged_port_start', '80');
    });
    expect(hostInodes()).toEqual(before);
    expect(hostname()).toBe(hostName);
    for (const [i, kind] of kinds.entries()) {
      const inode = namespaceInode(join(pins, kind));
      expect(inode).toBeTypeOf('bigint');
      expect(inode).not.toBe(before[i]);
    }
    expect(withNamespace(join(pins, 'uts'), 'uts', hostname)).toBe('inside');
    const start = '/proc/sys/net/ipv4/ip_unprivileged_port_start';
    expect(withNamespace(join(pins, 'net'), 'net', () => readFileSync(start, 'utf8'))).toBe('80\n');
    expect(readFileSync(start, 'utf8')).not.toBe('80\n');
    expect(withNamespace(join(pins, 'net'), 'net', networkInterfaces)).toMatchObject({
      lo: [{ address: '127.0.0.1' }, { address: '::1' }],
    });
    expect(readNetDev(join(pins, 'net')).find((i) => i.name === 'lo')).toMatchObject({
      rxBytes: 0n,
      txBytes: 0n,
    });

    unpinNamespaces(pins);
    unpinNamespaces(pins);
    expect(existsSync(pins)).toBe(false);
  });

  it('leaves nothing when init throws, and refuses an asynchronous function', () => {
    const before = hostInodes();
    const pins = join(dir, 'pod');
    const failing = () => {
      throw new Error('no such sysctl');
    };
    expect(() => pinNamespaces(pins, kinds, failing)).toThrow('no such sysctl');
    expect(() => pinNamespaces(pins, kinds, (async () => {}) as () => void)).toThrow(TypeError);
    expect(hostInodes()).toEqual(before);
    expect(listMounts(dir)).toEqual([]);

    pinNamespaces(pins, ['net']);
    expect(() => withNamespace(join(pins, 'net'), 'net', async () => {})).toThrow(TypeError);
    expect(() => withNamespace(join(pins, 'net'), 'uts', () => {})).toThrow(
      expect.objectContaining({ code: 'EINVAL' }),
    );
    expect(() => pinNamespaces(pins, ['net'])).toThrow(expect.objectContaining({ code: 'EEXIST' }));
    expect(hostInodes()).toEqual(before);
    expect(namespaceInode(join(pins, 'net'))).toBeTypeOf('bigint');
    unpinNamespaces(pins);
  });

  it('mounts each pin once below a shared parent', () => {
    // Stands for a /run that systemd has made shared.
    const run = join(dir, 'run');
    mkdirSync(run);
    mount('tmpfs', run, 'tmpfs', 0);
    mount(null, run, null, MS_SHARED);
    const pods = join(run, 'ns');
    prepareNamespaceDir(pods);
    prepareNamespaceDir(pods);
    pinNamespaces(join(pods, 'a'), ['net', 'uts']);
    expect(listMounts(pods).map((m) => m.mountpoint)).toEqual([
      pods,
      join(pods, 'a/net'),
      join(pods, 'a/uts'),
    ]);
    releaseNamespaceDir(pods);
    expect(listMounts(pods)).toHaveLength(3);
    unpinNamespaces(join(pods, 'a'));
    expect(listMounts(pods).map((m) => m.mountpoint)).toEqual([pods]);
    releaseNamespaceDir(pods);
    releaseNamespaceDir(pods);
    expect(existsSync(pods)).toBe(false);
    unmount(run);
  });
});

describe('mounts', () => {
  it('mounts an overlay of 120 layers with long names, longer than a page of options', () => {
    const lowerdirs = Array.from({ length: 120 }, (_, i) => {
      const layer = join(dir, `${i}-${'layer'.repeat(15)}`, 'fs');
      mkdirSync(layer, { recursive: true });
      writeFileSync(join(layer, `file-${i}`), `${i}`);
      writeFileSync(join(layer, 'same'), `${i}`);
      return layer;
    });
    const [upperdir, workdir, target] = ['upper', 'work', 'merged'].map((n) => {
      mkdirSync(join(dir, n));
      return join(dir, n);
    }) as [string, string, string];
    mountOverlay({ lowerdirs, upperdir, workdir, target });
    expect(openPathsBelow(dir)).toEqual([]);
    expect(listMounts(target)).toHaveLength(1);
    expect(readFileSync(join(target, 'file-119'), 'utf8')).toBe('119');
    expect(readFileSync(join(target, 'same'), 'utf8')).toBe('0');
    writeFileSync(join(target, 'new'), 'x');
    expect(readFileSync(join(upperdir, 'new'), 'utf8')).toBe('x');
    expect(unmount(target)).toBe(true);
    expect(unmount(target)).toBe(false);
    expect(unmount(join(dir, 'absent'))).toBe(false);
  });

  it('mounts short layer lists by name, escaped, and read-only views of one or two layers', () => {
    const lowerdirs = ['a:b', 'c,d\\e f'].map((n) => {
      mkdirSync(join(dir, n));
      writeFileSync(join(dir, n, n), '');
      return join(dir, n);
    });
    const target = join(dir, 'merged');
    mkdirSync(target);
    for (const layers of [lowerdirs, lowerdirs.slice(0, 1)]) {
      mountOverlay({ lowerdirs: layers, target });
      expect(existsSync(join(target, 'a:b'))).toBe(true);
      expect(existsSync(join(target, 'c,d\\e f'))).toBe(layers.length === 2);
      expect(() => writeFileSync(join(target, 'x'), '')).toThrow(expect.objectContaining({ code: 'EROFS' }));
      unmount(target);
    }
  });

  it('names errno, call and path', () => {
    expect(() => mount('x', join(dir, 'absent'), 'tmpfs', 0)).toThrow(
      expect.objectContaining({ code: 'ENOENT', syscall: 'mount', path: join(dir, 'absent') }),
    );
    expect(() => mount('x', `${dir}\0/etc`, 'tmpfs', 0)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
  });
});

describe('process identity', () => {
  it('signals that very process only', async () => {
    const child = spawn('sleep', ['60'], { stdio: 'ignore' });
    const exited = once(child, 'exit');
    const identity = identify(child.pid ?? 0);
    if (identity === undefined) throw new Error('no identity of a running child');
    expect(isAlive(identity)).toBe(true);
    expect(signal({ ...identity, startTime: identity.startTime + 1n }, 'SIGKILL')).toBe(false);
    expect(signal(identity, 0)).toBe(true);
    expect(signal(identity, 'SIGKILL')).toBe(true);
    await exited;
    expect(isAlive(identity)).toBe(false);
    expect(signal(identity, 'SIGKILL')).toBe(false);
  });
});

describe('poller', () => {
  let poller: Poller;
  beforeEach(() => {
    poller = new Poller();
  });
  afterEach(async () => {
    await poller.close();
    await poller.close();
  });

  /** A process whose parent is gone: not our child, so only a pidfd tells of its end. */
  async function startOrphan(): Promise<number> {
    const { stdout } = await promisify(execFile)('sh', ['-c', 'sleep 60 >/dev/null 2>&1 & echo $!']);
    return Number(stdout);
  }

  const fdCount = () => readdirSync('/proc/self/fd').length;

  it('sees the exit of a process that is not a child', async () => {
    const before = fdCount();
    const pid = await startOrphan();
    const identity = identify(pid);
    if (identity === undefined) throw new Error('the orphan is gone');
    const seen = poller.watchExit(identity);
    expect(await Promise.race([seen.then(() => 'exited'), setImmediatePromise('alive')])).toBe('alive');
    expect(signal(identity, 'SIGKILL')).toBe(true);
    await seen;
    expect(isAlive(identity)).toBe(false);
    await poller.watchExit(identity);
    await poller.watchExit({ pid: process.pid, startTime: 1n });
    expect(fdCount()).toBe(before);
  });

  it('stops watching when aborted or closed', async () => {
    const self = identify(process.pid);
    if (self === undefined) throw new Error('no identity of this process');
    const abort = new AbortController();
    const aborted = poller.watchExit(self, { signal: abort.signal });
    abort.abort(new Error('enough'));
    await expect(aborted).rejects.toThrow('enough');
    const closed = poller.watchExit(self);
    await Promise.all([expect(closed).rejects.toThrow('closed'), poller.close()]);
    expect(() => poller.add(0, EPOLLIN, () => {})).toThrow('closed');
  });

  it('reports again what was left unread, and nothing after remove', async () => {
    const fd = eventfd();
    const { promise: third, resolve } = Promise.withResolvers<void>();
    let calls = 0;
    poller.add(fd, EPOLLIN, (events) => {
      expect(events).toBe(EPOLLIN);
      calls++;
      if (calls < 3) return;
      poller.remove(fd);
      resolve();
    });
    expect(() => poller.add(fd, EPOLLIN, () => {})).toThrow(expect.objectContaining({ code: 'EEXIST' }));
    writeSync(fd, new BigUint64Array([1n]));
    await third;
    poller.remove(fd);

    // The same descriptor, still readable, for another user: the first callback is not called again.
    await new Promise<void>((done) => {
      poller.add(fd, EPOLLIN, () => {
        readSync(fd, Buffer.alloc(8));
        done();
      });
    });
    expect(calls).toBe(3);
    poller.remove(fd);
    closeSync(fd);
  });

  it('lets the process exit while it waits, and end when it is closed', async () => {
    const code = `import { Poller } from ${JSON.stringify(pollerModule)};
      import { identify } from ${JSON.stringify(identityModule)};
      const poller = new Poller();
      poller.watchExit(identify(process.pid)).catch(() => {});
      process.stdout.write('watching');
      if (process.argv[1] === 'exit') setImmediate(() => process.exit(3));
      else await poller.close();`;
    const run = (how: string) =>
      promisify(execFile)(process.execPath, ['--input-type=module', '-e', code, how], { timeout: 20_000 });
    expect((await run('end')).stdout).toBe('watching');
    await expect(run('exit')).rejects.toMatchObject({ code: 3, stdout: 'watching' });
  });
});

describe('orphans', () => {
  const reapModule = new URL('../../src/sys/reap.ts', import.meta.url).href;

  /** Runs a program in a process of its own, as being the subreaper is for the whole process. */
  async function inProcess(body: string): Promise<string> {
    const code = `import { Poller } from ${JSON.stringify(pollerModule)};
      import { becomeSubreaper, OrphanSweeper } from ${JSON.stringify(reapModule)};
      import { execFileSync, spawn } from 'node:child_process';
      import { readFileSync } from 'node:fs';
      becomeSubreaper();
      const poller = new Poller();
      // A shell that still lives would reap it; $$ is the shell's pid in what it forks, too.
      const orphan = (script) =>
        Number(execFileSync('sh', ['-c', '(while kill -0 $$; do :; done; ' + script + ') >/dev/null 2>&1 & echo $!'], { encoding: 'utf8' }));
      const state = (pid) => { try { return /State:\\s+(\\w)/.exec(readFileSync('/proc/' + pid + '/status'))[1]; } catch { return 'gone'; } };
      const until = async (look) => { while (!look()) await new Promise((r) => setTimeout(r, 5)); };
      ${body}
      await poller.close();`;
    const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', code], {
      timeout: 20_000,
    });
    return stdout.trim();
  }

  it('tell the subreaper their code or signal, also when they have ended before', async () => {
    const body = `const early = orphan('sleep 0.1; exit 9');
      await until(() => state(early) === 'Z');
      const codes = await Promise.all([
        poller.orphanExit(early),
        poller.orphanExit(orphan('sleep 0.1; exit 7')),
        poller.orphanExit(orphan("sleep 0.1; exec sh -c 'kill -TERM $$'")),
      ]);
      console.log(JSON.stringify([codes, state(early)]));`;
    expect(JSON.parse(await inProcess(body))).toEqual([[9, 7, 143], 'gone']);
  });

  it('that nobody waits for are all reaped at the fourth look, and children of Node’s are not', async () => {
    const body = `const sweeper = new OrphanSweeper(1_000_000);
      const lost = [orphan('exit 1'), orphan('exit 2'), orphan('exit 3')];
      const states = () => lost.map(state).join(' ');
      await until(() => states() === 'Z Z Z');
      for (let look = 1; look <= 3; look++) sweeper.look();
      const before = states();
      sweeper.look();
      const after = states();
      const child = spawn('true');
      const code = await new Promise((resolve) => child.once('exit', resolve));
      sweeper.look();
      sweeper.close();
      console.log(JSON.stringify([before, after, code]));`;
    expect(JSON.parse(await inProcess(body))).toEqual(['Z Z Z', 'gone gone gone', 0]);
  });
});
