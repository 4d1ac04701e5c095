import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { ContainerConfig } from '../../proto/gen/runtime/v1/ContainerConfig.ts';
import type { LinuxContainerSecurityContext } from '../../proto/gen/runtime/v1/LinuxContainerSecurityContext.ts';
import { Berthd } from '../support/berthd.ts';
import { busyboxArchive } from '../support/busybox.ts';
import { IDLE, importArchive, OWN_PID, type Pod, Pods, refusal, sh } from '../support/pods.ts';

const run = promisify(execFile);
const LINKS = 'localhost/berth-test/links:1';
let berthd: Berthd;
let pods: Pods;
let pod: Pod;
/** A folder of the node outside everything of the daemon's, to which links of the image lead. */
let outside: string;

beforeAll(async () => {
  berthd = await Berthd.start();
  await berthd.importBusybox();
  outside = `/tmp/berth-outside-${berthd.tag}`;
  await importArchive(
    berthd,
    await busyboxArchive(
      LINKS,
      ['true'],
      {},
      {
        absolute: outside,
        relative: outside.slice(1),
        'etc/resolv.conf': `${outside}/resolv.conf`,
        loop: '/loop',
      },
    ),
  );
  pods = new Pods(berthd);
});
beforeEach(async () => {
  await mkdir(outside);
  pod = await pods.run();
});
afterEach(async () => {
  expect(await berthd.removeAllPods()).toEqual([]);
  await rm(outside, { recursive: true, force: true });
});
afterAll(async () => expect(await berthd.close()).toEqual([]));

const dir = (name: string) => path.join(berthd.dir, 'volumes', name);
const secure = (more: LinuxContainerSecurityContext) => ({
  linux: { security_context: { ...OWN_PID, ...more } },
});
const prints = async (script: string, more: ContainerConfig = {}) =>
  (await pods.runToEnd(pod, sh(`exec 2>&1; ${script}`, more))).log.trim();

describe('a mount over a symlink', () => {
  it('of the image stays in the container, absolute, relative, and at berth’s own files', async () => {
    await mkdir(dir('v'), { recursive: true });
    await writeFile(path.join(dir('v'), 'file'), 'volume');
    const mounts = ['/absolute/made/a', '/relative/b', '/absolute'].map((container_path) => ({
      host_path: dir('v'),
      container_path,
    }));
    const id = await pods.start(pod, { ...IDLE, image: { image: LINKS }, mounts: mounts.slice(0, 2) });
    expect(await pods.ask(id, `cat ${outside}/made/a/file ${outside}/b/file`)).toBe('volumevolume');
    expect(await pods.ask(id, `cat /etc/resolv.conf >/dev/null; ls ${outside}`)).toBe('b\nmade\nresolv.conf');
    const over = await pods.start(pod, { ...IDLE, image: { image: LINKS }, mounts: mounts.slice(2) });
    expect(await pods.ask(over, 'cat /absolute/file')).toBe('volume');
    expect(await readdir(outside)).toEqual([]);
  });

  it('of a volume stays in the container, too', async () => {
    await mkdir(dir('links'), { recursive: true });
    await mkdir(dir('v'), { recursive: true });
    await symlink(outside, path.join(dir('links'), 'out'));
    const mounts = [
      { host_path: dir('v'), container_path: '/links/out/below' },
      { host_path: dir('links'), container_path: '/links' },
    ];
    const id = await pods.start(pod, { ...IDLE, mounts });
    expect(await pods.ask(id, `touch ${outside}/below/x; echo made`)).toBe('made');
    expect(existsSync(path.join(dir('v'), 'x'))).toBe(true);
    expect(await readdir(outside)).toEqual([]);
  });

  it('that leads nowhere but to itself is an error of that container', async () => {
    const config = {
      ...IDLE,
      image: { image: LINKS },
      mounts: [{ host_path: outside, container_path: '/loop/x' }],
    };
    const said = await refusal(pods.start(pod, config));
    expect(said.message).toMatch(/loop|too many levels/i);
  });

  it('a working directory and the files of users are looked for in the container', async () => {
    await writeFile(path.join(outside, 'resolv.conf'), 'of the node');
    const said = await prints('pwd; ls', { image: { image: LINKS }, working_dir: '/absolute/work' });
    expect(said).toBe(`${outside}/work`);
    expect(await readdir(outside)).toEqual(['resolv.conf']);
    expect(await readFile(path.join(outside, 'resolv.conf'), 'utf8')).toBe('of the node');
  });
});

describe('a host path', () => {
  it('may be a symlink or lie behind one; one that leads nowhere is refused, and not made', async () => {
    await mkdir(path.join(outside, 'real'));
    await writeFile(path.join(outside, 'real/file'), 'x');
    await symlink('real', path.join(outside, 'link'));
    await symlink('absent', path.join(outside, 'dangling'));
    const mount = (name: string) => ({
      mounts: [{ host_path: path.join(outside, name), container_path: '/m' }],
    });
    expect(await prints('cat /m/file', mount('link'))).toBe('x');
    expect(await prints('cat /m', mount('link/file'))).toBe('x');
    expect(await prints('ls /m; touch /m/x', mount('link/made/deep'))).toBe('');
    expect(existsSync(path.join(outside, 'real/made/deep/x'))).toBe(true);
    const said = await refusal(pods.create(pod, { ...IDLE, ...mount('dangling') }));
    expect(said).toMatchObject({
      kind: 'invalid',
      message: expect.stringContaining('config.mounts[0].host_path'),
    });
    expect(existsSync(path.join(outside, 'absent'))).toBe(false);
  });
});

describe('propagation', () => {
  const mount = (propagation: string, host_path = outside) => ({
    mounts: [{ host_path, container_path: '/m', propagation: `PROPAGATION_${propagation}` as never }],
  });

  it('that the node cannot give is refused, saying what would help', async () => {
    await run('mount', ['-t', 'tmpfs', 'tmpfs', outside]);
    try {
      await run('mount', ['--make-private', outside]);
      await mkdir(path.join(outside, 'below'));
      for (const [propagation, missing] of [
        ['BIDIRECTIONAL', 'shared'],
        ['HOST_TO_CONTAINER', 'shared or a slave'],
      ] as const) {
        const said = await refusal(
          pods.create(pod, { ...IDLE, ...mount(propagation, path.join(outside, 'below')) }),
        );
        expect(said).toEqual({
          kind: 'invalid',
          message: `config.mounts[0].propagation: ${outside}/below is on the mount ${outside}, which is not ${missing}; "mount --make-rshared ${outside}" on the node changes that`,
        });
      }
      expect(await prints('echo ok', mount('PRIVATE'))).toBe('ok');
      await run('mount', ['--make-shared', outside]);
      for (const propagation of ['BIDIRECTIONAL', 'HOST_TO_CONTAINER'])
        expect(await prints('echo ok', mount(propagation)), propagation).toBe('ok');
    } finally {
      await berthd.removeAllPods();
      await run('umount', [outside]);
    }
  });
});

describe('/proc', () => {
  const MASKED = ['/proc/kcore', '/proc/keys', '/proc/timer_list', '/proc/scsi'];
  const READONLY = ['/proc/sys', '/proc/irq', '/proc/bus'];

  it('is masked by default and whole with ProcMount Unmasked, as the kubelet says by its lists', async () => {
    const script = `for f in ${MASKED.join(' ')}; do test -d $f && ls $f | wc -l || head -c 1 $f 2>/dev/null | wc -c; done; grep -c ' /proc/sys ' /proc/mounts`;
    const masked = await prints(script, secure({ masked_paths: MASKED, readonly_paths: READONLY }));
    expect(masked.split('\n').at(-1)).toBe('1');
    expect(
      masked
        .split('\n')
        .slice(0, -1)
        .every((n) => n === '0'),
    ).toBe(true);
    const whole = await prints(script, secure({ masked_paths: [], readonly_paths: [] }));
    expect(whole.split('\n').at(-1)).toBe('0');
    expect(whole.split('\n').slice(0, -1)).toContain('1');
  });
});
