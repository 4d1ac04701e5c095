import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { release, tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Client } from '../../src/cli/client.ts';
import { BUSYBOX } from '../support/busybox.ts';
import { Containerd } from '../support/containerd.ts';
import { testGuestImage } from '../support/guest.ts';
import { type Pod, Pods, sh } from '../support/pods.ts';
import { vmTables } from '../support/vm.ts';

const RUNTIME = 'io.containerd.berth-vm.v2';
const BIN = path.resolve(import.meta.dirname, '../../bin');

let containerd: Containerd;
let dir: string;
let machines: string;
beforeAll(async () => {
  await testGuestImage();
  dir = await mkdtemp(path.join(tmpdir(), 'berth-vm-'));
  machines = path.join(dir, 'vm');
  await mkdir(machines);
  const config = path.join(dir, 'berth.toml');
  await writeFile(config, vmTables());
  containerd = await Containerd.start({
    env: { PATH: `${BIN}:${process.env.PATH}`, BERTH_CONFIG: config, BERTH_VM_STATE: machines },
  });
});
afterAll(async () => {
  expect(await containerd?.close()).toEqual([]);
  await rm(dir, { recursive: true, force: true });
});

/** Beside their directories is what was found out about the node. */
const running = async () => (await readdir(machines)).filter((name) => name !== 'probes.json');

describe("berth's shim for virtual machines under containerd", () => {
  it('runs a container without a pod in a machine of its own', async () => {
    const args = ['run', '--rm', '--runtime', RUNTIME, '--env', 'WORD=hello', BUSYBOX, 'berth-vm-one'];
    const said = await containerd.ctr(
      ...args,
      'sh',
      '-c',
      'echo $WORD; uname -r; ls /proc/1/exe >&2; exit 3',
    );
    expect(said).toMatchObject({ code: 3, stderr: expect.stringContaining('/proc/1/exe') });
    const [word, kernel] = said.stdout.split('\n');
    expect(word).toBe('hello');
    expect(kernel).not.toBe(release());
    expect(await running()).toEqual([]);
  });

  it("runs Kubernetes' pods, with all their containers in one machine", async () => {
    const client = new Client({ endpoint: containerd.endpoint, signal: new AbortController().signal });
    const pods = new Pods({ client, dir, cgroupParent: containerd.cgroupParent });
    let pod: Pod | undefined;
    try {
      pod = await pods.run({}, 'vm');
      const id = await pods.start(pod);
      expect(await pods.ask(id, 'uname -r')).not.toBe(release());
      const ended = await pods.runToEnd(pod, sh('echo one; echo two >&2; exit 3'));
      expect(ended).toMatchObject({ exit_code: 3, reason: 'Error' });
      expect(ended.log.split('\n').sort()).toEqual(['', 'one', 'two']);
      expect(await running()).toHaveLength(1);
      await pods.stop(id);
      await pods.stopPod(pod);
      await pods.removePod(pod);
      expect(await running()).toEqual([]);
    } finally {
      // Also of a test that failed: killing the shim alone would leave its machine.
      if (pod !== undefined) await pods.removePod(pod).catch(() => {});
      client.close();
    }
  });
});
