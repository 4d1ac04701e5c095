import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { levelOf, Selinux } from '../../../src/isolation/selinux.ts';
import { namespaces } from '../spec/configs.ts';

const FIELD = 'config.linux.security_context.selinux_options';
const NONE = { user: '', role: '', type: '', level: '' };

let dir: string;
const file = async (name: string, text: string) => {
  await mkdir(path.dirname(path.join(dir, name)), { recursive: true });
  await writeFile(path.join(dir, name), text);
};
beforeEach(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'selinux-'));
  await file('fs/enforce', '1');
  await file('fs/context', '');
  await file('current', 'system_u:system_r:container_runtime_t:s0\0');
  await file('etc/config', '# the policy\nSELINUX=enforcing\nSELINUXTYPE=strict \n');
  await file(
    'etc/strict/contexts/lxc_contexts',
    'process = "system_u:system_r:container_t:s0"\ncontent = "system_u:object_r:virt_var_lib_t:s0"\nfile = "system_u:object_r:container_file_t:s0"\n',
  );
});
afterEach(() => rm(dir, { recursive: true }));

const detect = (wanted = true) =>
  Selinux.detect(wanted, {
    selinuxfs: path.join(dir, 'fs'),
    current: path.join(dir, 'current'),
    config: path.join(dir, 'etc'),
  });
const asked = (selinux = {}, more = {}) => ({
  selinux: { ...NONE, ...selinux },
  privileged: false,
  namespaces: namespaces(),
  ...more,
});

describe('where SELinux is enabled', () => {
  test('a pod gets the policy’s labels with a level that no other pod has', async () => {
    const selinux = await detect();
    expect(selinux.unavailable).toBe(undefined);
    const taken: string[] = [];
    for (let i = 0; i < 200; i++) {
      const { process = '', mount = '' } = await selinux.labels(asked(), FIELD, { taken });
      expect(process).toMatch(/^system_u:system_r:container_t:s0:c\d+,c\d+$/);
      expect(mount).toBe(`system_u:object_r:container_file_t:${levelOf(process)}`);
      const [a = 0, b = 0] = [...process.matchAll(/c(\d+)/g)].map(([, n]) => Number(n)).slice(-2);
      expect(a).toBeLessThan(b);
      expect(b).toBeLessThan(1024);
      expect(taken).not.toContain(mount);
      taken.push(mount);
    }
    // The kernel was asked about each.
    expect(await readFile(path.join(dir, 'fs/context'), 'utf8')).not.toBe('');
  });

  test('containers have their pod’s level, and what they ask for', async () => {
    const selinux = await detect();
    const level = 's0:c1,c2';
    expect(await selinux.labels(asked(), FIELD, { level })).toEqual({
      process: 'system_u:system_r:container_t:s0:c1,c2',
      mount: 'system_u:object_r:container_file_t:s0:c1,c2',
    });
    const all = { user: 'app_u', role: 'app_r', type: 'app_t', level: 's0:c5' };
    expect(await selinux.labels(asked(all), FIELD, { level })).toEqual({
      process: 'app_u:app_r:app_t:s0:c5',
      mount: 'app_u:object_r:container_file_t:s0:c5',
    });
  });

  test('what acts on the node is not confined, unless it asks for a label', async () => {
    const selinux = await detect();
    const level = 's0';
    const mount = 'system_u:object_r:container_file_t:s0';
    expect(await selinux.labels(asked({}, { privileged: true }), FIELD, { level })).toEqual({ mount });
    for (const more of [{ pid: 'node' }, { ipc: 'node' }] as const) {
      const shared = { namespaces: namespaces(more) };
      expect(await selinux.labels(asked({}, shared), FIELD, { level })).toEqual({ mount });
      const { process } = await selinux.labels(asked({ type: 'app_t' }, shared), FIELD, { level });
      expect(process).toBe('system_u:system_r:app_t:s0');
    }
  });

  test('what is no part of a label is refused', async () => {
    const selinux = await detect();
    for (const [name, value] of Object.entries({ type: 'a:b', level: 's0"', user: 'ü', role: 'a\n' }))
      await expect(selinux.labels(asked({ [name]: value }), FIELD)).rejects.toThrow(
        `${FIELD}.${name}: must be a word of an SELinux label`,
      );
  });
});

describe('where no labels can be set', () => {
  test.each<[string, RegExp, () => Promise<unknown>, boolean?]>([
    ['no SELinux', /^this host has no SELinux$/, () => rm(path.join(dir, 'fs/enforce'))],
    ['no policy', /no SELinux policy loaded/, () => file('current', 'kernel\0')],
    [
      'a policy without containers',
      /^SELinux: .*no such file.*lxc_contexts/,
      () => rm(path.join(dir, 'etc/strict'), { recursive: true }),
    ],
    [
      'a policy with half of them',
      /^the SELinux policy strict has no types for containers/,
      () => file('etc/strict/contexts/lxc_contexts', 'process = "a:b:c:s0"\n'),
    ],
    ['a configuration without', /^selinux = false/, async () => {}, false],
  ])('%s: pods that insist are refused, and no others', async (_name, why, prepare, wanted) => {
    await prepare();
    const selinux = await detect(wanted);
    expect(selinux.unavailable).toMatch(why);
    for (const harmless of [
      asked(),
      asked({ type: 'spc_t', level: 's0' }),
      asked({ level: 's0' }, { privileged: true }),
    ])
      expect(await selinux.labels(harmless, FIELD)).toEqual({});
    await expect(selinux.labels(asked({ level: 's0:c1,c2' }), FIELD)).rejects.toMatchObject({
      kind: 'unimplemented',
      message: expect.stringMatching(
        /selinux_options\.level: SELinux labels cannot be set: .*; leave seLinuxOptions out, or ask for the type spc_t$/,
      ),
    });
  });

  test('in a virtual machine', async () => {
    const selinux = await detect();
    expect(await selinux.labels(asked(), FIELD, { elsewhere: 'it is elsewhere' })).toEqual({});
    await expect(
      selinux.labels(asked({ type: 'a_t' }), FIELD, { elsewhere: 'it is elsewhere' }),
    ).rejects.toThrow('selinux_options.type: SELinux labels cannot be set: it is elsewhere; ');
  });
});
