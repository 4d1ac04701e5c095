import { constants } from 'node:os';
import { describe, expect, it } from 'vitest';
import { CAPABILITIES } from '../../../src/sys/capabilities.ts';
import { SyscallError } from '../../../src/sys/libc.ts';
import { makedev } from '../../../src/sys/mknod.ts';
import { overlayOptions, parseMountinfo } from '../../../src/sys/mount.ts';
import { parseNetDev } from '../../../src/sys/namespaces.ts';
import { identify, isAlive, parseProcessStat } from '../../../src/sys/process-identity.ts';

describe('parseMountinfo', () => {
  it('reads optional fields, escapes and namespace files', () => {
    const entries = parseMountinfo(
      [
        '36 35 98:0 /mnt1 /a\\040b\\134c\\012d rw,noatime shared:1 master:2 - ext3 /dev/root rw,errors=continue',
        '501 27 0:4 net:[4026532233] /run/ns/net rw - nsfs nsfs rw',
        'not a mountinfo line',
        '',
      ].join('\n'),
    );
    expect(entries).toEqual([
      {
        id: 36,
        parentId: 35,
        device: '98:0',
        root: '/mnt1',
        mountpoint: '/a b\\c\nd',
        options: ['rw', 'noatime'],
        propagation: ['shared:1', 'master:2'],
        fstype: 'ext3',
        source: '/dev/root',
        superOptions: ['rw', 'errors=continue'],
      },
      expect.objectContaining({ root: 'net:[4026532233]', propagation: [], fstype: 'nsfs' }),
    ]);
  });

  it('takes a mount point that is a hyphen for what it is', () => {
    const [entry] = parseMountinfo('1 2 0:1 / /- rw - tmpfs - rw');
    expect(entry).toMatchObject({ mountpoint: '/-', fstype: 'tmpfs', source: '-' });
  });
});

describe('overlayOptions', () => {
  it('escapes what separates options and layers', () => {
    expect(
      overlayOptions({ upperdir: '/u,1', workdir: '/w:1', extraOptions: ['index=off'] }, ['/a:b', '/c\\d']),
    ).toBe('lowerdir=/a\\:b:/c\\\\d,upperdir=/u\\,1,workdir=/w:1,index=off');
  });

  it('quotes an SELinux label, whose categories have commas', () => {
    expect(overlayOptions({ selinuxLabel: 'u:r:t:s0:c1,c2' }, ['/a', '/b'])).toBe(
      'lowerdir=/a:/b,context="u:r:t:s0:c1,c2"',
    );
  });
});

describe('parseProcessStat', () => {
  const tail = 'S 41 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 18446744073709551615 1000 2 3';

  it('is not misled by the command, and keeps 64 bits', () => {
    expect(parseProcessStat(`42 (a) S 1 (b) ${tail}\n`)).toEqual({
      pid: 42,
      command: 'a) S 1 (b',
      state: 'S',
      ppid: 41,
      startTime: 18446744073709551615n,
    });
  });

  it('answers undefined for anything else', () => {
    expect(parseProcessStat('')).toBeUndefined();
    expect(parseProcessStat('42 (sh) S 1 2')).toBeUndefined();
  });

  it('knows this process and not one with its pid and another start', () => {
    const self = identify(process.pid);
    if (self === undefined) throw new Error('no identity of this process');
    expect(isAlive(self)).toBe(true);
    expect(isAlive({ ...self, startTime: self.startTime + 1n })).toBe(false);
  });
});

describe('parseNetDev', () => {
  it('reads counters beyond 2^53 and skips the header', () => {
    const text = [
      'Inter-|   Receive                                                |  Transmit',
      ' face |bytes    packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed',
      '    lo: 9007199254740993 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16',
      'eth0:1:1 1 1 1 1 1 1 1 2 2 2 2 2 2 2 2',
    ].join('\n');
    expect(parseNetDev(text)).toEqual([
      {
        name: 'lo',
        rxBytes: 9007199254740993n,
        rxPackets: 2n,
        rxErrors: 3n,
        rxDropped: 4n,
        txBytes: 9n,
        txPackets: 10n,
        txErrors: 11n,
        txDropped: 12n,
      },
      expect.objectContaining({ name: 'eth0:1', rxBytes: 1n, txBytes: 2n }),
    ]);
  });
});

describe('capabilities', () => {
  it('has the kernel’s numbers', () => {
    expect(CAPABILITIES).toHaveLength(41);
    expect(CAPABILITIES.indexOf('CAP_SYS_ADMIN')).toBe(21);
    expect(CAPABILITIES.indexOf('CAP_SETFCAP')).toBe(31);
    expect(CAPABILITIES[40]).toBe('CAP_CHECKPOINT_RESTORE');
  });
});

describe('makedev', () => {
  it('splits the minor round the major', () => {
    expect(makedev(1, 3)).toBe(0x103);
    expect(makedev(0xfff, 0xfffff)).toBe(0xffffffff);
    expect(makedev(8, 0x12345)).toBe(0x12300845);
  });
});

describe('SyscallError', () => {
  it('looks like Node’s own system errors', () => {
    const error = new SyscallError('mount', constants.errno.EAGAIN, '/x');
    expect(error).toMatchObject({
      code: 'EAGAIN',
      errno: -constants.errno.EAGAIN,
      syscall: 'mount',
      path: '/x',
    });
    expect(error.message).toBe('mount /x: EAGAIN');
    expect(new SyscallError('mount', 9999)).toMatchObject({ code: 'ERRNO_9999', path: undefined });
  });
});
