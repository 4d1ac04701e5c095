import { execFile } from 'node:child_process';
import {
  closeSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { writeFileAtomic } from '../../src/sys/atomic-file.ts';
import { tryLock } from '../../src/sys/flock.ts';
import { check, declare } from '../../src/sys/libc.ts';
import { makedev, mknod, S_IFCHR, S_IFIFO } from '../../src/sys/mknod.ts';
import { ServiceNotifier } from '../../src/sys/sd-notify.ts';
import { utimensat } from '../../src/sys/times.ts';
import { lgetxattr, llistxattr, lsetxattr } from '../../src/sys/xattr.ts';

const chrootModule = new URL('../../src/sys/chroot.ts', import.meta.url).href;

let dir: string;

beforeEach(() => {
  dir = realpathSync(mkdtempSync(join(tmpdir(), 'berth-sysfile-')));
});

afterEach(() => rmSync(dir, { recursive: true, force: true }));

const code = (c: string) => expect.objectContaining({ code: c });

describe('extended attributes', () => {
  it('are set, read and listed on a name that is not UTF-8, and never through a symlink', () => {
    const path = Buffer.concat([Buffer.from(`${dir}/f`), Buffer.from([0xff])]);
    writeFileSync(path, '');
    const value = Buffer.from([0, 1, 2, 0]);
    lsetxattr(path, 'trusted.berth', value);
    lsetxattr(path, 'trusted.empty', Buffer.alloc(0));
    expect(lgetxattr(path, 'trusted.berth')).toEqual(value);
    expect(lgetxattr(path, 'trusted.empty')).toEqual(Buffer.alloc(0));
    expect(lgetxattr(path, 'trusted.absent')).toBeUndefined();
    expect(llistxattr(path).sort()).toEqual(['trusted.berth', 'trusted.empty']);

    const link = join(dir, 'link');
    symlinkSync(path, link);
    lsetxattr(link, 'trusted.link', value);
    expect(llistxattr(path)).not.toContain('trusted.link');
    expect(llistxattr(link)).toEqual(['trusted.link']);
    expect(() => lgetxattr(join(dir, 'absent'), 'trusted.x')).toThrow(code('ENOENT'));
  });
});

describe('mknod', () => {
  it('makes devices and FIFOs with the number and mode asked for', () => {
    const umask = process.umask(0);
    try {
      mknod(join(dir, 'null'), S_IFCHR | 0o666, makedev(1, 3));
      mknod(join(dir, 'big'), S_IFCHR | 0o600, makedev(300, 70000));
      mknod(join(dir, 'whiteout'), S_IFCHR, 0);
      mknod(join(dir, 'fifo'), S_IFIFO | 0o640, 0);
    } finally {
      process.umask(umask);
    }
    writeFileSync(join(dir, 'null'), 'gone');
    expect(readFileSync(join(dir, 'null'))).toHaveLength(0);
    expect(statSync(join(dir, 'null')).mode & 0o777).toBe(0o666);
    expect(statSync(join(dir, 'big')).rdev).toBe(makedev(300, 70000));
    expect(statSync(join(dir, 'whiteout'))).toMatchObject({ rdev: 0 });
    expect(statSync(join(dir, 'fifo')).isFIFO()).toBe(true);
    expect(() => mknod(join(dir, 'fifo'), S_IFIFO, 0)).toThrow(code('EEXIST'));
  });
});

describe('utimensat', () => {
  it('keeps nanoseconds, times before 1970, and the target of a symlink', () => {
    const file = join(dir, 'file');
    const link = join(dir, 'link');
    writeFileSync(file, '');
    symlinkSync(file, link);
    const before = statSync(file, { bigint: true }).mtimeNs;
    utimensat(link, 1_700_000_000_123_456_789n, -1n);
    const { atimeNs, mtimeNs } = lstatSync(link, { bigint: true });
    expect([atimeNs, mtimeNs]).toEqual([1_700_000_000_123_456_789n, -1n]);
    expect(statSync(file, { bigint: true }).mtimeNs).toBe(before);
  });
});

describe('chroot', () => {
  it('leaves nothing of the host within reach, on the main thread and on libuv’s', async () => {
    writeFileSync(join(dir, 'inside'), 'yes');
    const program = `import { chroot } from ${JSON.stringify(chrootModule)};
      import { readdirSync, promises } from 'node:fs';
      await promises.stat('/etc');
      chroot(process.argv[1]);
      const names = [readdirSync('/'), readdirSync('../../..'), await promises.readdir('/')];
      console.log(JSON.stringify(names));`;
    const args = ['--input-type=module', '-e', program, dir];
    const { stdout } = await promisify(execFile)(process.execPath, args, { timeout: 20_000 });
    expect(JSON.parse(stdout)).toEqual([['inside'], ['inside'], ['inside']]);
  });
});

describe('tryLock', () => {
  it('is refused to a second opener until the first closes', () => {
    const path = join(dir, 'lock');
    const first = openSync(path, 'w');
    const second = openSync(path, 'w');
    expect(tryLock(first)).toBe(true);
    expect(tryLock(second)).toBe(false);
    closeSync(first);
    expect(tryLock(second)).toBe(true);
    closeSync(second);
  });
});

describe('writeFileAtomic', () => {
  it('replaces a file by a new one and leaves no temporary, also after failure', async () => {
    const path = join(dir, 'state.json');
    await writeFileAtomic(path, 'old');
    linkSync(path, join(dir, 'held'));
    await writeFileAtomic(path, 'new', { mode: 0o600 });
    expect(readFileSync(path, 'utf8')).toBe('new');
    expect(readFileSync(join(dir, 'held'), 'utf8')).toBe('old');
    expect(statSync(path).mode & 0o777).toBe(0o600);
    mkdirSync(join(dir, 'taken'));
    await expect(writeFileAtomic(join(dir, 'taken'), 'x')).rejects.toThrow(code('EISDIR'));
    await expect(writeFileAtomic(join(dir, 'absent/x'), 'x')).rejects.toThrow(code('ENOENT'));
    expect(readdirSync(dir).sort()).toEqual(['held', 'state.json', 'taken']);
  });
});

describe('ServiceNotifier', () => {
  const cSocket = declare<[number, number, number]>('socket', ['int', 'int', 'int']);
  const cBind = declare<[number, Buffer, number]>('bind', ['int', 'void *', 'uint']);
  const cRecv = declare<[number, Buffer, number, number]>('recv', ['int', 'void *', 'size_t', 'int'], 'long');

  /** Binds a datagram socket as systemd does, and answers what `calls` made it receive. */
  function received(socket: string, calls: (notifier: ServiceNotifier) => void): string[] {
    const fd = check('socket', cSocket(1, 2 | 0o4000, 0));
    try {
      const address = Buffer.concat([Buffer.from([1, 0]), Buffer.from(socket.replace('@', '\0'))]);
      check('bind', cBind(fd, address, address.length));
      calls(new ServiceNotifier({ NOTIFY_SOCKET: socket }));
      const datagrams: string[] = [];
      const buffer = Buffer.alloc(4096);
      for (let size = cRecv(fd, buffer, 4096, 0); size >= 0; size = cRecv(fd, buffer, 4096, 0)) {
        datagrams.push(buffer.toString('utf8', 0, size));
      }
      return datagrams;
    } finally {
      closeSync(fd);
    }
  }

  it.each(['path', 'abstract'])('sends one datagram a call to a socket of kind %s', (kind) => {
    const socket = kind === 'path' ? join(dir, 'notify') : `@berth-test-${process.pid}`;
    const lines = received(socket, (notifier) => {
      notifier.ready();
      notifier.watchdog();
      notifier.stopping();
    });
    expect(lines).toEqual([`READY=1\nMAINPID=${process.pid}`, 'WATCHDOG=1', 'STOPPING=1']);
  });

  it('does nothing without a socket and knows its interval', () => {
    new ServiceNotifier({}).ready();
    expect(new ServiceNotifier({ WATCHDOG_USEC: '30000000' }).watchdogIntervalMs).toBeUndefined();
    const socket = join(dir, 'absent');
    const notifier = new ServiceNotifier({ NOTIFY_SOCKET: socket, WATCHDOG_USEC: '30000000' });
    expect(notifier.watchdogIntervalMs).toBe(15_000);
    expect(() => notifier.ready()).toThrow(code('ENOENT'));
    expect(existsSync(socket)).toBe(false);
  });
});
