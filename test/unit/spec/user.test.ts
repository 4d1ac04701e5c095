import { describe, expect, test } from 'vitest';
import type { ContainerSecurity } from '../../../src/container/config.ts';
import { parseGroup, parsePasswd } from '../../../src/spec/passwd.ts';
import { resolveUser } from '../../../src/spec/user.ts';
import { containerConfig } from './configs.ts';

const PASSWD = `root:x:0:0:root:/root:/bin/sh
# comment
app:x:1000:1001:App:/srv:/bin/sh
broken:x:abc:1
short
web:x:33:33::/var/www:`;
const GROUP = `root:x:0:
app:x:1001:app
disk:x:6:root,app
video:x:44:app
www:x:33:
`;

const image = (path: string): Promise<string | undefined> =>
  Promise.resolve({ '/etc/passwd': PASSWD, '/etc/group': GROUP }[path]);

function resolve(sc: Partial<ContainerSecurity>, imageUser = '', read = image) {
  return resolveUser(containerConfig({}, sc).security, imageUser, read);
}

describe('resolveUser', () => {
  test.each<[string, Partial<ContainerSecurity>, string, [number, number, number[]]]>([
    ['nothing said', {}, '', [0, 0, [0, 6]]],
    ['image: name', {}, 'app', [1000, 1001, [1001, 6, 44]]],
    ['image: number in passwd', {}, '1000', [1000, 1001, [1001, 6, 44]]],
    ['image: unknown number', {}, '5000', [5000, 0, [0]]],
    ['image: name and group name', {}, 'app:www', [1000, 33, [33, 6, 44]]],
    ['image: numbers', {}, '7:8', [7, 8, [8]]],
    ['image: name and number', {}, 'web:9', [33, 9, [9]]],
    ['image: group alone', {}, ':www', [0, 33, [33, 6]]],
    ['request by number', { runAsUser: 33n }, 'app:www', [33, 33, [33]]],
    ['request by name', { runAsUsername: 'app' }, '0', [1000, 1001, [1001, 6, 44]]],
    ['request with group', { runAsUser: 1000n, runAsGroup: 5n }, '', [1000, 5, [5, 6, 44]]],
    ['root of the image', { runAsUser: 0n, runAsGroup: 0n }, 'app', [0, 0, [0, 6]]],
    [
      'more groups',
      { runAsUser: 1000n, supplementalGroups: [44n, 2000n] },
      '',
      [1000, 1001, [1001, 6, 44, 2000]],
    ],
    [
      'strict groups',
      { runAsUser: 1000n, supplementalGroups: [2000n], supplementalGroupsPolicy: 'strict' },
      '',
      [1000, 1001, [1001, 2000]],
    ],
  ])('%s', async (_name, sc, user, [uid, gid, additionalGids]) => {
    expect(await resolve(sc, user)).toEqual({ uid, gid, additionalGids });
  });

  test('an image without the files has numbers only', async () => {
    const none = (): Promise<undefined> => Promise.resolve(undefined);
    expect(await resolve({ runAsUser: 12n }, '', none)).toEqual({ uid: 12, gid: 0, additionalGids: [0] });
    await expect(resolve({}, 'app', none)).rejects.toThrow(/user "app" of the image: no such user/);
  });

  test.each<[Partial<ContainerSecurity>, string, RegExp]>([
    [{ runAsGroup: 5n }, '', /run_as_group: needs run_as_user/],
    [{ runAsUser: -1n }, '', /run_as_user: ids are/],
    [{ runAsUser: 4294967295n }, '', /run_as_user: ids are/],
    [{ runAsUsername: 'nobody' }, '', /run_as_username: no such user/],
    [{ supplementalGroups: [1n, -2n] }, '', /supplemental_groups\[1\]: ids are/],
    [{}, 'app:nogroup', /no such group/],
    [{}, '-1', /ids are/],
    [{}, '99999999999999999999', /ids are/],
    [{}, 'a:b:c', /colon/],
  ])('wrong users are refused: %#', async (sc, user, message) => {
    await expect(resolve(sc, user)).rejects.toThrow(message);
  });
});

test('hostile files: no names, huge ids, many lines', () => {
  expect(parsePasswd(':x:1:1\nbig:x:4294967296:0\nok:x:1:1')).toEqual([{ name: 'ok', uid: 1, gid: 1 }]);
  expect(parseGroup('a:x:1')).toEqual([{ name: 'a', gid: 1, members: [] }]);
  expect(parsePasswd(`${'\n'.repeat(70_000)}late:x:1:1`)).toEqual([]);
});
