import { describe, expect, it } from 'vitest';
import { virtiofsdArgv } from '../../../src/vm/storage/virtiofsd.ts';

describe('the command line of virtiofsd', () => {
  it("is this for QEMU's program", () => {
    expect(
      virtiofsdArgv(
        { program: '/usr/lib/qemu/virtiofsd', kind: 'c', cache: 'none', dir: '/run/a,b/shared' },
        4096,
      ),
    ).toEqual([
      '/usr/lib/qemu/virtiofsd',
      '--fd=3',
      '--rlimit-nofile=4096',
      '-f',
      '-o',
      'source=/run/a\\,b/shared',
      '-o',
      'cache=none',
      '-o',
      'sandbox=namespace',
      '-o',
      'announce_submounts',
      '-o',
      'xattr',
      '-o',
      'log_level=err',
    ]);
  });

  it('is this for the program in Rust', () => {
    expect(
      virtiofsdArgv(
        { program: '/usr/libexec/virtiofsd', kind: 'rust', cache: 'none', dir: '/run/a,b/shared' },
        4096,
      ),
    ).toEqual([
      '/usr/libexec/virtiofsd',
      '--fd=3',
      '--rlimit-nofile=4096',
      '--shared-dir=/run/a,b/shared',
      '--cache=never',
      '--sandbox=namespace',
      '--seccomp=kill',
      '--announce-submounts',
      '--xattr',
      '--log-level=error',
    ]);
  });
});
