import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { apparmorProfile, checkProfileLoaded, loadedProfiles } from '../../../src/spec/apparmor.ts';

const named = (localhostRef: string) => ({
  privileged: false,
  apparmor: { type: 'localhost' as const, localhostRef },
});

describe('the profile of a process', () => {
  test('is the one that the pod names, in either spelling', () => {
    expect(apparmorProfile(named('web'), { apparmor: true })).toBe('web');
    expect(apparmorProfile(named('localhost/web'), { apparmor: true })).toBe('web');
  });

  test('is none without one, and for a privileged container', () => {
    for (const type of ['runtimeDefault', 'unconfined'] as const)
      expect(
        apparmorProfile({ privileged: false, apparmor: { type, localhostRef: '' } }, { apparmor: true }),
      ).toBe(undefined);
    expect(apparmorProfile({ ...named('web'), privileged: true }, { apparmor: false })).toBe(undefined);
  });

  test('that a node without AppArmor cannot apply is refused', () => {
    expect(() => apparmorProfile(named('web'), { apparmor: false })).toThrow(
      'config.linux.security_context.apparmor: names a profile, but this host has no AppArmor',
    );
  });
});

describe('a profile must be loaded', () => {
  const LIST =
    '/usr/bin/man (enforce)\nmy profile (complain)\nlsb_release (unconfined)\nweb//child (enforce)\n';
  let file: string;
  beforeAll(async () => {
    file = path.join(await mkdtemp(path.join(tmpdir(), 'apparmor-')), 'profiles');
    await writeFile(file, LIST);
  });
  afterAll(() => rm(path.dirname(file), { recursive: true }));

  test('as the kernel lists it', async () => {
    expect([...loadedProfiles(LIST)]).toEqual(['/usr/bin/man', 'my profile', 'lsb_release', 'web//child']);
    await checkProfileLoaded('my profile', file);
    await checkProfileLoaded(undefined, '/no/such/file');
    await expect(checkProfileLoaded('web', file)).rejects.toThrow(
      'apparmor.localhost_ref: the profile "web" is not loaded on this node',
    );
    await expect(checkProfileLoaded('web', '/no/such/file')).rejects.toThrow(/^AppArmor: .*no such file/);
  });
});
