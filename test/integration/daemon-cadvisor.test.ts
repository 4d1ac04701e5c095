import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { json, text } from 'node:stream/consumers';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { Berthd } from '../support/berthd.ts';
import { IDLE, OWN_PID, Pods } from '../support/pods.ts';

const socket = path.join(tmpdir(), `berth-cadvisor-${randomBytes(4).toString('hex')}`, 'crio.sock');
let berthd: Berthd;
let pods: Pods;

beforeAll(async () => {
  berthd = await Berthd.start({ tables: `[cadvisor]\nenabled = true\nsocket = "${socket}"\n` });
  await berthd.importBusybox();
  pods = new Pods(berthd);
});
afterAll(async () => {
  expect(await berthd?.close()).toEqual([]);
  expect(existsSync(socket)).toBe(false);
});

/** Asks as cAdvisor does: an unknown host name, no compression. */
async function ask(url: string): Promise<{ status: number | undefined; body: unknown }> {
  const asked = request({ socketPath: socket, path: url, headers: { host: 'crio' } });
  asked.end();
  const response = await new Promise<import('node:http').IncomingMessage>((resolve, reject) => {
    asked.once('response', resolve);
    asked.once('error', reject);
  });
  const { statusCode: status } = response;
  return { status, body: status === 200 ? await json(response) : await text(response) };
}

it('tells cAdvisor whose cgroups it finds, by names and answers that it knows', async () => {
  expect((await ask('/info')).body).toEqual({
    storage_driver: 'berth',
    storage_root: `${berthd.dir}/root`,
    cgroup_driver: 'cgroupfs',
  });
  const pod = await pods.run({ labels: { 'io.kubernetes.pod.uid': 'u1' } });
  const labels = { 'io.kubernetes.container.name': 'app' };
  const id = await pods.start(pod, { ...IDLE, labels, linux: { security_context: OWN_PID } });
  for (const [kind, of, name] of [
    ['pod', pod.id, 'POD'],
    ['container', id, 'app'],
  ] as const) {
    const pid = await pods.pid(kind, of);
    const { status, body } = await ask(`/containers/${of}`);
    expect(status).toBe(200);
    expect(body).toMatchObject({
      name: of,
      pid,
      labels: {
        'io.kubernetes.container.name': name,
        'io.kubernetes.pod.name': pod.config.metadata?.name,
        'io.kubernetes.pod.namespace': 'default',
      },
      ip_address: (await pods.podStatus(pod)).network?.ip,
    });
    // How cAdvisor's factory knows a container of CRI-O: by the last part of its cgroup's path.
    const cgroup = /:memory:(.*)$/m.exec(readFileSync(`/proc/${pid}/cgroup`, 'utf8'))?.[1] ?? '';
    expect(path.basename(cgroup)).toBe(`crio-${of}`);
    expect(cgroup.startsWith(`${berthd.cgroupParent}/`)).toBe(true);
  }
  for (const url of [`/containers/${'f'.repeat(64)}`, '/containers/x', '/', `/containers/${id}/..`]) {
    expect((await ask(url)).status).toBe(404);
  }
  expect(statSync(socket).mode & 0o777).toBe(0o600);
});

it('goes on after a daemon was killed, and does not take the socket from another', async () => {
  await berthd.stop('SIGKILL');
  await berthd.start();
  expect((await ask('/info')).status).toBe(200);
  const other = await Berthd.prepare({ tables: `[cadvisor]\nenabled = true\nsocket = "${socket}"\n` });
  await expect(other.start()).rejects.toThrow(/cadvisor\.socket: another daemon answers on/);
  expect((await ask('/info')).status).toBe(200);
  // One that cannot start leaves the mount for its namespaces to its next try.
  await other.close();
});
