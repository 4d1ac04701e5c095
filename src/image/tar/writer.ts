import { BerthError } from '../../errors.ts';
import type { TarEntry, TarType } from './reader.ts';

/** An entry to be written; what is absent is 0, or empty. Names are bytes as latin1 text, as in `TarEntry`. */
export type NewEntry = Pick<TarEntry, 'name' | 'type'> &
  Partial<
    Pick<TarEntry, 'linkname' | 'mode' | 'uid' | 'gid' | 'size' | 'devMajor' | 'devMinor' | 'xattrs'>
  > & {
    /** Seconds since 1970; fractions are not kept, as Docker's layers have none. */
    mtime?: number;
  };

const BLOCK = 512;
const FLAGS: Readonly<Record<TarType, string>> = {
  file: '0',
  hardlink: '1',
  symlink: '2',
  'character-device': '3',
  'block-device': '4',
  directory: '5',
  fifo: '6',
};

/** Zero blocks: the end of an archive. */
export const END_OF_ARCHIVE = Buffer.alloc(2 * BLOCK);

/**
 * The header of an entry, its PAX header before it where the fields of 1988 are too short (pax(1),
 * "ustar Interchange Format"). The entry's content and `paddingAfter` follow. The same entry always gives the
 * same bytes.
 */
export function tarHeader(entry: NewEntry): Buffer {
  const { size = 0, uid = 0, gid = 0, mtime = 0, linkname = '' } = entry;
  const records: [string, Buffer][] = [];
  const text = (key: string, value: string, length: number): string => {
    if (value.length > length) records.push([key, Buffer.from(value, 'latin1')]);
    return value.slice(0, length);
  };
  const number = (key: string, value: number, digits: number): number => {
    if (Number.isInteger(value) && value >= 0 && value < 8 ** digits) return value;
    records.push([key, Buffer.from(String(value))]);
    return 0;
  };
  const header = block(FLAGS[entry.type], {
    name: text('path', entry.name, 100),
    linkname: text('linkpath', linkname, 100),
    mode: entry.mode ?? 0o644,
    uid: number('uid', uid, 7),
    gid: number('gid', gid, 7),
    size: number('size', size, 11),
    mtime: number('mtime', Math.floor(mtime), 11),
    devMajor: entry.devMajor ?? 0,
    devMinor: entry.devMinor ?? 0,
  });
  for (const [name, value] of entry.xattrs ?? []) records.push([`SCHILY.xattr.${name}`, value]);
  if (records.length === 0) return header;
  const pax = Buffer.concat(records.map(([key, value]) => paxRecord(key, value)));
  const fields = { name: 'PaxHeaders/entry', mode: 0o644, size: pax.length };
  return Buffer.concat([block('x', fields), pax, paddingAfter(pax.length), header]);
}

/** What fills the last block of so many bytes of content. */
export function paddingAfter(size: number): Buffer {
  return Buffer.alloc((BLOCK - (size % BLOCK)) % BLOCK);
}

interface Fields {
  name: string;
  linkname?: string;
  mode: number;
  uid?: number;
  gid?: number;
  size: number;
  mtime?: number;
  devMajor?: number;
  devMinor?: number;
}

function block(flag: string, fields: Fields): Buffer {
  const header = Buffer.alloc(BLOCK);
  const octal = (value: number, start: number, digits: number): void => {
    const digitsOf = value.toString(8).padStart(digits, '0');
    if (digitsOf.length > digits)
      throw new BerthError('invalid', `tar: ${fields.name}: ${value} does not fit`);
    header.write(digitsOf, start, 'latin1');
  };
  header.write(fields.name, 0, 'latin1');
  octal(fields.mode, 100, 7);
  octal(fields.uid ?? 0, 108, 7);
  octal(fields.gid ?? 0, 116, 7);
  octal(fields.size, 124, 11);
  octal(fields.mtime ?? 0, 136, 11);
  header.write(flag, 156, 'latin1');
  header.write(fields.linkname ?? '', 157, 'latin1');
  header.write('ustar\x0000', 257, 'latin1');
  octal(fields.devMajor ?? 0, 329, 7);
  octal(fields.devMinor ?? 0, 337, 7);
  // The sum counts its own field as blanks.
  header.fill(' ', 148, 156);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return header;
}

/** `<length> <key>=<value>\n`, where the length counts itself. */
function paxRecord(key: string, value: Buffer): Buffer {
  const rest = Buffer.concat([Buffer.from(` ${key}=`, 'latin1'), value, Buffer.from('\n')]);
  let length = rest.length + 1;
  while (length !== rest.length + String(length).length) length = rest.length + String(length).length;
  return Buffer.concat([Buffer.from(String(length)), rest]);
}
