import {
  closeSync,
  constants,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { mknod, S_IFIFO } from '../../../src/sys/mknod.ts';
import { openHandleByPath, openInRoot, resolveInRoot } from '../../../src/sys/safe-path.ts';

let dir: string;
let root: string;

beforeEach(() => {
  dir = realpathSync(mkdtempSync(join(tmpdir(), 'berth-path-')));
  root = join(dir, 'root');
  mkdirSync(join(root, 'etc'), { recursive: true });
  writeFileSync(join(root, 'etc/passwd'), 'inside');
  mkdirSync(join(dir, 'etc'));
  writeFileSync(join(dir, 'etc/passwd'), 'outside');
  symlinkSync('/etc/passwd', join(root, 'absolute'));
  symlinkSync('../../../../etc/passwd', join(root, 'etc/up'));
  symlinkSync('/etc', join(root, 'dir'));
  symlinkSync('loop', join(root, 'loop'));
  symlinkSync('/proc/self/root/etc/hostname', join(root, 'magic'));
});

afterEach(() => rmSync(dir, { recursive: true, force: true }));

const inside = [
  '/etc/passwd',
  'etc/passwd',
  'absolute',
  'etc/up',
  'dir/passwd',
  'dir/../absolute',
  '../../etc/passwd',
];

describe('resolveInRoot', () => {
  it.each(inside)('keeps %s inside', (path) => {
    expect(resolveInRoot(root, path)).toBe(join(root, 'etc/passwd'));
  });

  it('keeps what does not exist, and stops a loop', () => {
    expect(resolveInRoot(root, 'dir/new/file')).toBe(join(root, 'etc/new/file'));
    expect(resolveInRoot(root, 'magic')).toBe(join(root, 'proc/self/root/etc/hostname'));
    expect(resolveInRoot(root, '..')).toBe(root);
    expect(() => resolveInRoot(root, 'loop')).toThrow(expect.objectContaining({ code: 'ELOOP' }));
  });

  it('follows 255 links and no more', () => {
    for (let i = 0; i <= 255; i++)
      symlinkSync(i === 0 ? 'etc/passwd' : `link-${i - 1}`, join(root, `link-${i}`));
    expect(resolveInRoot(root, 'link-254')).toBe(join(root, 'etc/passwd'));
    expect(() => resolveInRoot(root, 'link-255')).toThrow(expect.objectContaining({ code: 'ELOOP' }));
  });
});

describe('openInRoot', () => {
  it.each(inside)('opens %s inside', (path) => {
    const fd = openInRoot(root, path);
    expect(readFileSync(fd, 'utf8')).toBe('inside');
    closeSync(fd);
    const handle = openHandleByPath(root, path);
    expect(readFileSync(`/proc/self/fd/${handle}`, 'utf8')).toBe('inside');
    closeSync(handle);
  });

  it('names what is wrong and leaves nothing open', () => {
    const before = readdirSync('/proc/self/fd').length;
    const code = (c: string) => expect.objectContaining({ code: c });
    expect(() => openInRoot(root, 'absent')).toThrow(code('ENOENT'));
    expect(() => openInRoot(root, 'magic')).toThrow(code('ENOENT'));
    expect(() => openInRoot(root, 'loop')).toThrow(code('ELOOP'));
    expect(() => openInRoot(root, 'etc/passwd\0x')).toThrow(code('EINVAL'));
    expect(() => openInRoot(root, 'etc/passwd', constants.O_RDONLY | constants.O_DIRECTORY)).toThrow(
      code('ENOTDIR'),
    );
    expect(readdirSync('/proc/self/fd').length).toBe(before);
  });

  it('refuses a FIFO instead of waiting for a writer', () => {
    mknod(join(root, 'etc/group'), S_IFIFO | 0o600, 0);
    expect(() => openInRoot(root, 'etc/group')).toThrow('/group: must be a regular file');
  });
});
