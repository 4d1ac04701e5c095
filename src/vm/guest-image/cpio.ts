/** A file of an initial RAM file system. */
export interface CpioEntry {
  /** Relative: `bin/busybox`. */
  name: string;
  /** With the type's bits of stat(2). */
  mode: number;
  content?: Uint8Array;
}

const MAGIC = '070701';
const TRAILER = 'TRAILER!!!';

/** An archive in the format `newc`, the one that the kernel unpacks (Documentation/driver-api/early-userspace/buffer-format.rst). */
export function cpio(entries: readonly CpioEntry[]): Buffer {
  const parts = [...entries, { name: TRAILER, mode: 0 }].map((entry, index) => member(entry, index + 1));
  return Buffer.concat(parts);
}

function member({ name, mode, content = new Uint8Array(0) }: CpioEntry, inode: number): Buffer {
  // inode, mode, uid, gid, links, mtime, size, device and rdevice (major, minor each), length of the name, checksum.
  const numbers = [inode, mode, 0, 0, 1, 0, content.length, 0, 0, 0, 0, name.length + 1, 0];
  const header = MAGIC + numbers.map((number) => number.toString(16).padStart(8, '0')).join('');
  return Buffer.concat([padded(Buffer.from(`${header}${name}\0`)), padded(content)]);
}

function padded(bytes: Uint8Array): Uint8Array {
  const missing = -bytes.length & 3;
  return missing === 0 ? bytes : Buffer.concat([bytes, Buffer.alloc(missing)]);
}
