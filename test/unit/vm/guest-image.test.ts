import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { cpio } from '../../../src/vm/guest-image/cpio.ts';
import { findGuestImage } from '../../../src/vm/guest-image/find.ts';
import { unpackKernel } from '../../../src/vm/guest-image/kernel.ts';
import { unpackLegacyLz4 } from '../../../src/vm/guest-image/lz4.ts';
import { findModules, loadOrder } from '../../../src/vm/guest-image/modules.ts';
import { randomSource } from '../shim/random.ts';

const exec = promisify(execFile);
let dir: string;

beforeEach(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'berth-image-'));
});
afterEach(() => rm(dir, { recursive: true }));

describe('an initial RAM file system', () => {
  it('is what cpio unpacks', async () => {
    const archive = cpio([
      { name: 'bin', mode: 0o040755 },
      { name: 'bin/a', mode: 0o100755, content: Buffer.from('12345') },
      { name: 'init', mode: 0o100644, content: Buffer.alloc(0) },
    ]);
    await writeFile(path.join(dir, 'archive'), archive);
    const script = 'busybox cpio -i <archive 2>/dev/null && stat -c "%n %A %s" bin/a init && cat bin/a';
    const { stdout } = await exec('sh', ['-c', script], { cwd: dir });
    expect(stdout).toBe('bin/a -rwxr-xr-x 5\ninit -rw-r--r-- 0\n12345');
  });
});

/** A legacy frame of one block per piece, each all literals but for what `copies` adds. */
function legacy(...blocks: number[][]): Buffer {
  const parts = blocks.flatMap((block) => {
    const length = Buffer.alloc(4);
    length.writeUInt32LE(block.length);
    return [length, Buffer.from(block)];
  });
  return Buffer.concat([Buffer.from('02214c18', 'hex'), ...parts]);
}

describe('lz4', () => {
  it('copies literals and what came before, also over itself', () => {
    // "abc", then 7 bytes from 3 back; then "x" and 20 from 1 back (15 + 4 + 1), then "end".
    const block = [0x33, 0x61, 0x62, 0x63, 3, 0, 0x1f, 0x78, 1, 0, 1, 0x30, 0x65, 0x6e, 0x64];
    expect(unpackLegacyLz4(legacy(block)).toString()).toBe(`abcabcabca${'x'.repeat(21)}end`);
    expect(unpackLegacyLz4(legacy([0x10, 0x61], [0x10, 0x62])).toString()).toBe('ab');
  });

  it.each([
    ['another format', Buffer.from('1f8b0800', 'hex')],
    ['a copy from before the beginning', legacy([0x10, 0x61, 2, 0])],
    ['a copy from nowhere', legacy([0x10, 0x61, 0, 0])],
    ['literals past the end', legacy([0x50, 0x61])],
    ['a length that goes on past the end', legacy([0xf0, 0xff])],
  ])('refuses %s', (_, packed) => {
    expect(() => unpackLegacyLz4(packed)).toThrow(RangeError);
  });

  it('answers any bytes with data or a RangeError', () => {
    const { bytes, below } = randomSource(3);
    for (let round = 0; round < 200; round++) {
      try {
        unpackLegacyLz4(legacy([...bytes(below(40))]));
      } catch (e: unknown) {
        expect(e).toBeInstanceOf(RangeError);
      }
    }
  });
});

describe('a kernel', () => {
  /** An x86 boot image with this payload, two setup sectors long. */
  function bootImage(payload: Buffer): Buffer {
    const head = Buffer.alloc(3 * 512);
    head[0x1f1] = 2;
    head.write('HdrS', 0x202);
    head.writeUInt32LE(16, 0x248);
    head.writeUInt32LE(payload.length, 0x24c);
    return Buffer.concat([head, Buffer.alloc(16), payload]);
  }
  const elf = Buffer.from('\x7fELF and the rest', 'latin1');
  const size = Buffer.alloc(4);

  it('is taken out of its boot image', () => {
    expect(unpackKernel(bootImage(Buffer.concat([gzipSync(elf), size])))?.equals(elf)).toBe(true);
    const packed = Buffer.concat([legacy([0xf0, elf.length - 15, ...elf]), size]);
    expect(unpackKernel(bootImage(packed))?.equals(elf)).toBe(true);
  });

  it('stays as it is when it is packed otherwise, is none, or is broken', () => {
    expect(unpackKernel(bootImage(Buffer.from('BZh91AY')))).toBeUndefined();
    expect(unpackKernel(Buffer.alloc(4096))).toBeUndefined();
    expect(unpackKernel(Buffer.alloc(3))).toBeUndefined();
    expect(unpackKernel(bootImage(Buffer.concat([gzipSync('no program'), size])))).toBeUndefined();
    expect(unpackKernel(bootImage(gzipSync(elf).subarray(0, 12)))).toBeUndefined();
  });
});

describe('modules', () => {
  it('are loaded after those that they need, each once', async () => {
    await mkdir(path.join(dir, 'kernel/net'), { recursive: true });
    const write = (name: string, depends: string) =>
      writeFile(path.join(dir, 'kernel', `${name}.ko`), `\x7fELF\0license=GPL\0depends=${depends}\0name=x\0`);
    await write('net/virtio-net', 'ring,net-failover');
    await write('net/net-failover', 'failover');
    await write('failover', '');
    await write('ring', '');
    const files = await findModules(dir);
    expect(await loadOrder(files, ['ring', 'virtio_net', 'built_in', 'failover'])).toEqual([
      ...['ring', 'failover', 'net_failover', 'virtio_net'],
    ]);
  });
});

describe('the current image', () => {
  const description = {
    ...{
      kernel: 'kernel',
      initrd: 'initrd',
      rootfs: 'r',
      rootfsType: 'erofs',
      kernelArgs: ['quiet'],
      release: '6.1',
    },
  };

  it('is found by its link, with paths that outlive a newer one', async () => {
    await mkdir(path.join(dir, 'abc'));
    await exec('ln', ['-s', 'abc', path.join(dir, 'current')]);
    await writeFile(path.join(dir, 'abc/image.json'), JSON.stringify(description));
    expect(await findGuestImage(dir)).toMatchObject({
      key: 'abc',
      kernel: `${dir}/abc/kernel`,
      rootfs: `${dir}/abc/r`,
    });
  });

  it('is asked for when there is none', async () => {
    await expect(findGuestImage(dir)).rejects.toThrow(/run "berth vm build-guest"/);
    await mkdir(path.join(dir, 'current'));
    for (const text of ['{', '{}']) {
      await writeFile(path.join(dir, 'current/image.json'), text);
      await expect(findGuestImage(dir)).rejects.toThrow(
        /image\.json describes no guest image: run "berth vm/,
      );
    }
  });
});
