import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { AppArmor, loadedProfiles } from '../../../src/isolation/apparmor.ts';

const LIST =
  '/usr/bin/man (enforce)\nmy profile (complain)\nlsb_release (unconfined)\nweb//child (enforce)\n';
const DEFAULT = { type: 'runtimeDefault', localhostRef: '' } as const;
const named = (localhostRef: string) => ({ type: 'localhost', localhostRef }) as const;

let dir: string;
let warnings: string[];
beforeEach(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'apparmor-'));
  warnings = [];
  await writeFile(path.join(dir, 'enabled'), 'Y\n');
  await writeFile(path.join(dir, 'profiles'), LIST);
});
afterEach(() => rm(dir, { recursive: true }));

const logger = () => pino({ base: null }, { write: (line: string) => void warnings.push(line) });
const places = () => ({
  enabled: path.join(dir, 'enabled'),
  profiles: path.join(dir, 'profiles'),
  config: path.join(dir, 'apparmor.d'),
  parser: path.join(dir, 'parser'),
});
const detect = () => AppArmor.detect(logger(), places());

/** A parser that keeps what it is given and does what `then` says. */
async function parser(then: string): Promise<void> {
  const { parser: file, profiles } = places();
  await writeFile(
    file,
    `#!/bin/sh\necho "$@" >${dir}/args\ncat >${dir}/loaded\nprofiles=${profiles}\n${then}\n`,
  );
  await chmod(file, 0o755);
}

describe('a profile that the pod names', () => {
  test('must be loaded, in either spelling of its name, also for a privileged container', async () => {
    const apparmor = await detect();
    for (const privileged of [false, true]) {
      expect(await apparmor.profileFor({ privileged, apparmor: named('my profile') })).toBe('my profile');
      expect(await apparmor.profileFor({ privileged, apparmor: named('localhost/web//child') })).toBe(
        'web//child',
      );
      await expect(apparmor.profileFor({ privileged, apparmor: named('web') })).rejects.toThrow(
        'config.linux.security_context.apparmor.localhost_ref: the profile "web" is not loaded on this node',
      );
    }
    await rm(places().profiles);
    await expect(apparmor.profileFor({ privileged: false, apparmor: named('web') })).rejects.toThrow(
      /^AppArmor: .*no such file/,
    );
  });

  test('is what stands before the mode in the kernel’s list', () => {
    expect([...loadedProfiles(LIST)]).toEqual(['/usr/bin/man', 'my profile', 'lsb_release', 'web//child']);
  });
});

describe('without AppArmor', () => {
  test('what asks for a profile is refused, and only that', async () => {
    for (const prepare of [() => writeFile(places().enabled, 'N\n'), () => rm(places().enabled)]) {
      await prepare();
      const none = await detect();
      expect(none.enabled).toBe(false);
      for (const apparmor of [DEFAULT, named('web')])
        await expect(none.profileFor({ privileged: false, apparmor })).rejects.toMatchObject({
          kind: 'invalid',
          message:
            'config.linux.security_context.apparmor: asks for a profile, but this host has no AppArmor',
        });
      expect(await none.profileFor({ privileged: false })).toBe(undefined);
    }
  });
});

test('in a virtual machine the node’s profiles count for nothing', async () => {
  const apparmor = await detect();
  for (const asked of [{}, { apparmor: DEFAULT }])
    expect(await apparmor.profileFor({ privileged: false, ...asked }, 'it is elsewhere')).toBe(undefined);
  await expect(
    apparmor.profileFor({ privileged: false, apparmor: named('my profile') }, 'it is elsewhere'),
  ).rejects.toThrow('apparmor: names a profile of the node, but it is elsewhere');
});

describe('the default profile', () => {
  test('is loaded once for all that name no other', async () => {
    await parser('echo "berth-default (enforce)" >>$profiles');
    const apparmor = await detect();
    expect(await apparmor.profileFor({ privileged: false })).toBe('berth-default');
    expect(await readFile(path.join(dir, 'loaded'), 'utf8')).toMatch(/^\nprofile berth-default /);
    await parser('exit 1');
    expect(await apparmor.profileFor({ privileged: false, apparmor: DEFAULT })).toBe('berth-default');
  });

  test('is for the ABI that the node’s parser knows', async () => {
    await parser('');
    await mkdir(path.join(places().config, 'abi'), { recursive: true });
    await writeFile(path.join(places().config, 'abi/3.0'), '');
    await (await detect()).profileFor({ privileged: false });
    expect(await readFile(path.join(dir, 'loaded'), 'utf8')).toMatch(/^abi <abi\/3\.0>,\n/);
  });

  test('is not for unconfined and privileged containers', async () => {
    const apparmor = await detect();
    const unconfined = { type: 'unconfined', localhostRef: '' } as const;
    expect(await apparmor.profileFor({ privileged: false, apparmor: unconfined })).toBe(undefined);
    for (const asked of [{}, { apparmor: DEFAULT }])
      expect(await apparmor.profileFor({ privileged: true, ...asked })).toBe(undefined);
  });

  test('that cannot be loaded keeps a pod from running only when it asks for it', async () => {
    const apparmor = await detect();
    await expect(apparmor.profileFor({ privileged: false, apparmor: DEFAULT })).rejects.toThrow(
      /apparmor: the default profile cannot be loaded: .*apt-get install apparmor/,
    );
    await parser('echo "syntax error" >&2; exit 1');
    await expect(apparmor.profileFor({ privileged: false, apparmor: DEFAULT })).rejects.toThrow(
      /cannot be loaded: .*exit code 1: syntax error$/,
    );
    expect(await apparmor.profileFor({ privileged: false })).toBe(undefined);
    expect(await apparmor.profileFor({ privileged: false })).toBe(undefined);
    expect(warnings.map((line) => JSON.parse(line))).toMatchObject([
      { level: 40, msg: 'containers run without AppArmor', reason: expect.stringContaining('syntax error') },
    ]);
  });
});
