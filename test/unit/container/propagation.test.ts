import { expect, test } from 'vitest';
import { mountOf, parseMountinfo } from '../../../src/sys/mount.ts';

const MOUNTS = parseMountinfo(`21 1 8:1 / / rw shared:1 - ext4 /dev/sda rw
22 21 8:2 / /var/lib rw master:2 - ext4 /dev/sdb rw
23 21 0:5 / /var/lib rw - tmpfs tmpfs rw
24 21 0:6 / /var/library rw - tmpfs tmpfs rw
`);

test.each([
  ['/', 21],
  ['/var', 21],
  ['/var/lib', 23],
  ['/var/lib/x/y', 23],
  ['/var/libs', 21],
  ['/var/library', 24],
])('%s is on mount %i', (path, id) => {
  expect(mountOf(path, MOUNTS)?.id).toBe(id);
});
