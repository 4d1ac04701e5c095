import { describe, expect, it } from 'vitest';
import { parseSmaps, sumVmMemory } from '../../../src/vm/memory.ts';

const KIB = 1024n;

describe('the memory of a virtual machine', () => {
  it('is summed by file from smaps', () => {
    const text = `7f2a40000000-7f2a60000000 rw-s 00000000 00:01 2057    /memfd:memory-backend-memfd (deleted)
Size:             524288 kB
Rss:               99840 kB
Pss:               49920 kB
Pss_Dirty:         49920 kB
VmFlags: rd wr sh mr mw me ms dd sd
7f2a70000000-7f2a70021000 rw-p 00000000 00:00 0
Size:                132 kB
Pss:                   4 kB
VmFlags: rd wr mr mw me ac sd
7f2a80000000-7f2a88000000 r--s 00000000 fe:00 131 /var/cache/a b/root.ext4
Pss:                  10 kB
7f2a90000000-7f2a90021000 rw-p 00000000 00:00 0                          [heap]
Pss:                   3 kB
55d1f0000000-55d1f0001000 rw-p 00000000 00:00 0
Pss:                   1 kB
`;
    expect(parseSmaps(text)).toEqual(
      new Map([
        ['/memfd:memory-backend-memfd (deleted)', 49_920n * KIB],
        ['', 5n * KIB],
        ['/var/cache/a b/root.ext4', 10n * KIB],
        ['[heap]', 3n * KIB],
      ]),
    );
  });

  it("is split into the guest's, the image's, the hypervisor's, the file server's and the shim's", () => {
    const memfd = '/memfd:memory-backend-memfd (deleted)';
    expect(
      sumVmMemory(
        [
          {
            command: 'qemu-system-x86',
            pss: new Map([
              [memfd, 50n],
              ['/images/a/root.img', 20n],
              ['/images/a/kernel', 8n],
              ['', 6n],
              ['/images-of-others', 1n],
            ]),
          },
          {
            command: 'virtiofsd',
            pss: new Map([
              [memfd, 50n],
              ['', 2n],
            ]),
          },
          { command: 'virtiofsd', pss: new Map([['[stack]', 1n]]) },
          {
            command: 'node',
            pss: new Map([
              ['', 30n],
              ['/memfd:own', 4n],
            ]),
          },
        ],
        '/images',
      ),
    ).toEqual({ guest: 100n, image: 28n, hypervisor: 7n, fileServer: 3n, shim: 34n, total: 172n });
  });
});
