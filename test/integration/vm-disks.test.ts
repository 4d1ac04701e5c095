import { execFile } from 'node:child_process';
import { lstat, readdir } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Berthd } from '../support/berthd.ts';
import { testGuestImage } from '../support/guest.ts';
import { IDLE, type Pod, Pods, sh, until } from '../support/pods.ts';
import { vmTables } from '../support/vm.ts';

const exec = promisify(execFile);
const MIB = 1 << 20;

let berthd: Berthd;
let pods: Pods;
/** By handler. */
const running = new Map<string, Pod>();

beforeAll(async () => {
  await testGuestImage();
  const tables = `${vmTables(undefined, 'rootfs = "erofs"\ndisk_size = 32')}
[runtimes.vmblock]
type = "vm"
rootfs = "block"
`;
  berthd = await Berthd.start({ tables });
  await berthd.importBusybox();
  pods = new Pods(berthd);
  // One after the other: each has but so long to come up.
  for (const handler of ['vm', 'vmblock']) running.set(handler, await pods.run({}, handler));
});

afterAll(async () => {
  expect(await berthd?.close()).toEqual([]);
});

/** What was made of layers, by name. */
async function made(): Promise<string[]> {
  const layers = path.join(berthd.dir, 'root/images/layers');
  const names = await readdir(layers, { recursive: true });
  return names.filter((name) => /^[^/]+\/root[.-]/.test(name)).map((name) => path.join(layers, name));
}

const disk = (id: string) => path.join(berthd.dir, 'root/containers', id, 'disk.img');

describe.each([
  ['vm', 'overlay'],
  ['vmblock', 'ext4'],
])('root file systems on disks, handler %s', (handler, type) => {
  const pod = (): Pod => running.get(handler) ?? expect.fail('no pod');

  it('are read and written, each on its own, and go with their containers', async () => {
    const volume = { host_path: path.join(berthd.dir, `volume-${handler}`), container_path: '/volume' };
    const one = await pods.start(pod(), { ...IDLE, mounts: [volume] });
    expect(
      await pods.ask(
        one,
        'echo one > /own; rm /bin/vi; ln /own /linked; echo v > /volume/file; cat /linked /volume/file; ' +
          'awk \'$2 == "/" { print $3 }\' /proc/mounts',
      ),
    ).toBe(`one\nv\n${type}`);
    const ended = await pods.runToEnd(
      pod(),
      sh('ls -d /bin/vi /own /lost+found 2>/dev/null; stat -c %a:%u /tmp /; sync; exit 3'),
    );
    expect([ended.exit_code, ended.log]).toEqual([3, '/bin/vi\n1777:0\n755:0\n']);
    await pods.removeContainer(ended.id);
    await expect(lstat(disk(ended.id))).rejects.toMatchObject({ code: 'ENOENT' });

    const used = async () => (await lstat(disk(one))).blocks * 512;
    const before = await used();
    await pods.ask(one, 'dd if=/dev/urandom of=/big bs=1M count=8 2>/dev/null; sync');
    expect(await used()).toBeGreaterThan(before + 7 * MIB);
    const { stats } = await berthd.client.runtime('ContainerStats', { container_id: one });
    const told = Number(stats?.writable_layer?.used_bytes?.value);
    expect(told).toBeGreaterThan(7 * MIB);
    expect(told).toBeLessThan(12 * MIB);
    const full = await pods.exec(
      one,
      ['sh', '-c', 'rm /big; sync; dd if=/dev/zero of=/big bs=1M count=40'],
      60,
    );
    expect([full.code, full.stderr]).toEqual([1, expect.stringContaining('No space left')]);
    await pods.ask(one, 'rm /big; sync');
    await until('the room is given back', async () => (await used()) < before + 4 * MIB);
  }, 180_000);
});

it('images are made once, count as their layers, and go with them', async () => {
  const files = await made();
  expect(files.map((file) => path.basename(file)).sort()).toEqual(['root-33554432.ext4', 'root.erofs']);
  for (const pod of running.values()) {
    await pods.stopPod(pod);
    await berthd.client.runtime('RemovePodSandbox', { pod_sandbox_id: pod.id });
  }
  const { stdout } = await exec('losetup', ['--list', '--noheadings', '--output', 'BACK-FILE']);
  expect(stdout).not.toContain(berthd.dir);
  const { image_filesystems } = await berthd.client.image('ImageFsInfo', {});
  const layers = path.join(berthd.dir, 'root/images/layers');
  const { stdout: du } = await exec('du', ['--summarize', '--block-size=1', layers]);
  const told = Number(image_filesystems[0]?.used_bytes?.value);
  expect(told).toBeGreaterThan(Number.parseInt(du, 10) - MIB);
  const { images } = await berthd.client.image('ListImages', {});
  for (const { id } of images) await berthd.client.image('RemoveImage', { image: { image: id } });
  await until('they are gone', async () => (await made()).length === 0);
});
