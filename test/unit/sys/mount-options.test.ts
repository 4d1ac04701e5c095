import { expect, it } from 'vitest';
import { MS_BIND, MS_NOSUID, MS_RDONLY, MS_REC } from '../../../src/sys/mount.ts';
import { mountOptions } from '../../../src/sys/mount-options.ts';

it.each<[string[], number, string]>([
  [[], 0, ''],
  [['defaults', 'rw'], 0, ''],
  [['rbind', 'ro', 'nosuid'], MS_BIND | MS_REC | MS_RDONLY | MS_NOSUID, ''],
  [['lowerdir=/a:/b', 'ro', 'constructor'], MS_RDONLY, 'lowerdir=/a:/b,constructor'],
])('of the options %j flags are told from what the file system gets', (options, flags, data) => {
  expect(mountOptions(options)).toEqual({ flags, data });
});
