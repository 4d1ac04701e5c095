import { chmod, mkdir, mkdtemp, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { Berthd } from '../support/berthd.ts';
import { testGuestImage } from '../support/guest.ts';
import { IDLE, type Pod, Pods, sh, until } from '../support/pods.ts';
import { VM_HANDLER, vmTables } from '../support/vm.ts';

const STAND_IN = path.resolve(import.meta.dirname, '../support/firecracker.ts');

let dir: string;
let berthd: Berthd;
let pods: Pods;
let pod: Pod;
/** As the kubelet has it for one pod. */
let kubelet: string;
const volumes = (kind: string) => path.join(kubelet, 'volumes', `kubernetes.io~${kind}`);

/** Behind Firecracker's API is a stand-in, behind that QEMU: the calls are Firecracker's, the guest is real. */
beforeAll(async () => {
  await testGuestImage();
  dir = await mkdtemp(path.join(tmpdir(), 'berth-fcpod-'));
  const program = path.join(dir, 'firecracker');
  const command = `FIRECRACKER_GUEST=1 exec '${process.execPath}' '${STAND_IN}' "$@"`;
  await writeFile(program, `#!/bin/sh\n${command}\n`);
  await chmod(program, 0o755);
  const keys = [
    'hypervisor = "firecracker"',
    `firecracker = "${program}"`,
    'rootfs = "erofs"',
    'disk_size = 64',
  ];
  berthd = await Berthd.start({ tables: vmTables(undefined, keys.join('\n')) });
  await berthd.importBusybox();
  pods = new Pods(berthd);
  pod = await pods.run({}, VM_HANDLER);
  kubelet = path.join(dir, 'pods/uid');
});

afterAll(async () => {
  expect(await berthd?.close()).toEqual([]);
  await rm(dir, { recursive: true, force: true });
});

it('runs containers, and has places again when they have ended', async () => {
  const ended = await pods.runToEnd(pod, sh('echo 1 > /f; cat /f; ls /bin/vi; exit 3'));
  expect([ended.exit_code, ended.log]).toEqual([3, '1\n/bin/vi\n']);
  await pods.removeContainer(ended.id);
});

it('has copies of small files as they change on the host, and brings the last words back', async () => {
  const [config, empty] = [path.join(volumes('configmap'), 'c'), path.join(volumes('empty-dir'), 'e')];
  const words = path.join(kubelet, 'containers/name/1234');
  await mkdir(path.join(config, '..1'), { recursive: true });
  await writeFile(path.join(config, '..1/key'), 'old');
  await writeFile(path.join(config, '..1/large'), 'x'.repeat(900_000));
  await symlink('..1', path.join(config, '..data'));
  for (const name of ['key', 'large']) await symlink(`..data/${name}`, path.join(config, name));
  await mkdir(empty, { recursive: true, mode: 0o777 });
  await mkdir(path.dirname(words), { recursive: true });
  await writeFile(words, '');
  const mounts = [
    { host_path: config, container_path: '/config', readonly: true },
    { host_path: empty, container_path: '/empty' },
    { host_path: words, container_path: '/dev/termination-log' },
  ];
  const one = await pods.start(pod, { ...IDLE, mounts });
  expect(await pods.ask(one, 'cat /config/key; wc -c < /config/large; cat /etc/hosts')).toContain(
    `old900000\n`,
  );
  await mkdir(path.join(config, '..2'));
  await writeFile(path.join(config, '..2/key'), 'new');
  await symlink('..2', path.join(config, '..tmp'));
  await rename(path.join(config, '..tmp'), path.join(config, '..data'));
  await rm(path.join(config, 'large'));
  await rm(path.join(config, '..1'), { recursive: true });
  await until(
    'the new value',
    async () => (await pods.ask(one, 'cat /config/key; ls -A /config')) === 'new..2\n..data\nkey',
  );
  expect(await pods.exec(one, ['sh', '-c', 'echo x > /config/key'])).toMatchObject({ code: 1 });
  await pods.ask(one, 'echo shared > /empty/file');
  const ended = await pods.runToEnd(
    pod,
    sh('cat /empty/file; echo -n bye > /dev/termination-log', { mounts }),
  );
  expect(ended.log).toBe('shared\n');
  expect(await readFile(words, 'utf8')).toBe('bye');
}, 180_000);

it('refuses what it would have to share, by name', async () => {
  const mounts = [{ host_path: berthd.dir, container_path: '/node' }];
  const id = await pods.create(pod, { ...IDLE, mounts });
  await expect(berthd.client.runtime('StartContainer', { container_id: id })).rejects.toThrow(
    /mounts: \/node .*shares no directories/,
  );
});

it('ends in order', async () => {
  await pods.stopPod(pod);
  expect((await pods.podStatus(pod)).state).toBe('SANDBOX_NOTREADY');
});
