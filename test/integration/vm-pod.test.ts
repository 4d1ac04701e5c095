import { mkdir, readdir, readFile, rename, symlink, writeFile } from 'node:fs/promises';
import { release } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Berthd } from '../support/berthd.ts';
import { testGuestImage } from '../support/guest.ts';
import { IDLE, type Pod, Pods, sh, until } from '../support/pods.ts';
import { forwardOverSpdy } from '../support/port-forward.ts';
import { exited, openSpdy, type Wanted } from '../support/remote-command.ts';
import { VM_HANDLER, vmTables } from '../support/vm.ts';

describe('without a guest image', () => {
  let berthd: Berthd;
  let pods: Pods;
  beforeAll(async () => {
    berthd = await Berthd.start({ tables: vmTables('/nonexistent') });
    pods = new Pods(berthd);
  });
  afterAll(async () => {
    expect(await berthd?.close()).toEqual([]);
  });

  it('a pod is refused with what to do about it, and leaves nothing', async () => {
    await expect(pods.run({}, VM_HANDLER)).rejects.toThrow(/berth vm build-guest/);
    expect(await readdir(path.join(berthd.dir, 'state/vm'))).toEqual([`settings-${VM_HANDLER}.json`]);
  });

  it.each([
    ['network', 'NODE'],
    ['pid', 'NODE'],
    ['ipc', 'NODE'],
  ])("the node's %s is refused before anything is made", async (kind, mode) => {
    const linux = { security_context: { namespace_options: { [kind]: mode } } };
    await expect(pods.run({ linux }, VM_HANDLER)).rejects.toThrow(
      new RegExp(`namespace_options.${kind}: the node's is not possible with this runtime handler`),
    );
  });
});

describe('a pod in a virtual machine', () => {
  let berthd: Berthd;
  let pods: Pods;
  let pod: Pod;
  let ip: string;
  const attach = async (container_id: string, wanted: Wanted) =>
    openSpdy((await berthd.client.runtime('Attach', { container_id, ...wanted })).url, wanted);
  const exec = async (container_id: string, cmd: string[], wanted: Wanted) =>
    openSpdy((await berthd.client.runtime('Exec', { container_id, cmd, ...wanted })).url, wanted);
  beforeAll(async () => {
    await testGuestImage();
    berthd = await Berthd.start({ tables: vmTables() });
    await berthd.importBusybox();
    pods = new Pods(berthd);
    pod = await pods.run({}, VM_HANDLER);
    ip = (await pods.podStatus(pod)).network?.ip ?? '';
  });
  afterAll(async () => {
    expect(await berthd?.close()).toEqual([]);
  });

  it('has a kernel of its own', async () => {
    const id = await pods.start(pod);
    expect(await pods.ask(id, 'uname -r')).not.toBe(release());
    expect(await pods.ask(id, 'hostname')).toBe(pod.config.hostname);
  });

  it('keeps the logs and codes of its containers, also over a rotation', async () => {
    const ended = await pods.runToEnd(pod, sh('echo one; echo two >&2; exit 3'));
    expect(ended.exit_code).toBe(3);
    expect(ended.log.split('\n').sort()).toEqual(['', 'one', 'two']);
    const id = await pods.start(
      pod,
      sh('while read line; do echo "got $line"; done', { stdin: true, stdin_once: true }),
    );
    const { log_path } = await pods.status(id);
    const client = await attach(id, { stdin: true, stdout: true, stderr: true });
    client.send('before\n');
    await until('the first line', () => client.text('stdout') === 'got before\n');
    await rename(log_path, `${log_path}.1`);
    await berthd.client.runtime('ReopenContainerLog', { container_id: id });
    client.send('after\n');
    client.endInput();
    expect((await pods.ended(id)).exit_code).toBe(0);
    expect((await pods.log(`${log_path}.1`)).map(({ text }) => text)).toEqual(['got before']);
    expect((await pods.log(log_path)).map(({ text }) => text)).toEqual(['got after']);
  });

  it('runs commands with streams, codes and terminals', async () => {
    const id = await pods.start(pod);
    expect(await pods.exec(id, ['sh', '-c', 'echo out; echo err >&2; exit 5'])).toEqual({
      ...{ code: 5, stdout: 'out\n', stderr: 'err\n' },
    });
    await expect(pods.exec(id, ['/nonexistent'])).rejects.toThrow(/nonexistent/);
    const wanted = { stdin: true, stdout: true, stderr: true };
    const cat = await exec(id, ['sh', '-c', 'wc -c; exit 7'], wanted);
    cat.send('x'.repeat(700_000));
    cat.endInput();
    expect(await cat.end()).toEqual({ stdout: '700000\n', stderr: '', status: exited(7) });
    const tty = await exec(id, ['sh'], { stdin: true, stdout: true, tty: true });
    tty.resize(101, 33);
    tty.send('until [ "$(stty size)" = "33 101" ]; do sleep 0.1; done; echo the size; exit 4\n');
    expect(await tty.end()).toMatchObject({ status: exited(4) });
    expect(tty.text('stdout')).toContain('the size\r\n');
    await expect(pods.exec(id, ['sleep', '1000'], 1)).rejects.toThrow(/1 s/);
  });

  it('sees volumes as they change on the host, and no more than it may', async () => {
    const volume = path.join(berthd.dir, 'volume');
    await mkdir(path.join(volume, '..1'), { recursive: true });
    await writeFile(path.join(volume, '..1/key'), 'old');
    await symlink('..1', path.join(volume, '..data'));
    await symlink('..data/key', path.join(volume, 'key'));
    const shared = path.join(berthd.dir, 'shared');
    await mkdir(shared);
    await writeFile(path.join(shared, 'file'), 'single');
    const mounts = [
      { host_path: volume, container_path: '/config', readonly: true },
      { host_path: shared, container_path: '/shared' },
      { host_path: path.join(shared, 'file'), container_path: '/etc/single' },
    ];
    const one = await pods.start(pod, { ...IDLE, mounts });
    const two = await pods.start(pod, { ...IDLE, mounts });
    expect(await pods.ask(one, 'cat /config/key /etc/single')).toBe('oldsingle');
    // As the kubelet updates a ConfigMap.
    await mkdir(path.join(volume, '..2'));
    await writeFile(path.join(volume, '..2/key'), 'new');
    await symlink('..2', path.join(volume, '..tmp'));
    await rename(path.join(volume, '..tmp'), path.join(volume, '..data'));
    await until('the new value', async () => (await pods.ask(one, 'cat /config/key')) === 'new');
    const denied = await pods.exec(one, ['sh', '-c', 'echo x > /config/..2/key']);
    expect([denied.code, denied.stderr]).toEqual([1, expect.stringContaining('Read-only')]);
    await pods.ask(one, 'echo -n from one > /shared/new; echo -n in memory > /dev/shm/x; touch /own');
    expect(await readFile(path.join(shared, 'new'), 'utf8')).toBe('from one');
    expect(await pods.ask(two, 'cat /shared/new /dev/shm/x; ls /own 2>/dev/null; true')).toBe(
      'from onein memory',
    );
    expect(await pods.ask(two, 'cat /etc/hosts')).toContain(`${ip}\t${pod.config.hostname}`);
  });

  it('reaches the pods of other handlers and is reached by them, and by port-forward on its loopback', async () => {
    const other = await pods.run({}, 'runc');
    const otherIp = (await pods.podStatus(other)).network?.ip ?? '';
    const answer = (text: string) => sh(`while true; do echo -n ${text} | nc -l -p 8080; done`);
    const runc = await pods.start(other, answer('runc'));
    const vm = await pods.start(pod, answer('vm'));
    const loop = await pods.start(
      pod,
      sh('mkdir /www; echo -n loopback > /www/f; exec httpd -f -p 127.0.0.1:8081 -h /www'),
    );
    const heard = (id: string, address: string) =>
      until(`an answer of ${address}`, () =>
        pods.ask(id, `nc -w 5 ${address} 8080 </dev/null`).catch(() => ''),
      );
    expect(await heard(vm, otherIp)).toBe('runc');
    expect(await heard(runc, ip)).toBe('vm');
    expect(await pods.ask(loop, 'cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu')).toMatch(
      /^[0-9a-f:]{17}\n1500$/,
    );
    const { url } = await berthd.client.runtime('PortForward', { pod_sandbox_id: pod.id, port: [8081] });
    const client = await forwardOverSpdy(url);
    const connection = await client.open(8081);
    connection.send('GET /f HTTP/1.0\r\n\r\n');
    await until('an answer on the loopback', () => connection.text.endsWith('loopback'));
    const refused = await client.open(9);
    await until('a refusal', () => /listens/.test(refused.error));
    client.destroy();
  });

  it('tells what its containers use, and what it all costs', async () => {
    const resources = { memory_limit_in_bytes: 48 << 20, cpu_quota: 50_000, cpu_period: 100_000 };
    const id = await pods.start(
      pod,
      sh('dd if=/dev/zero of=/dev/shm/fill bs=1M count=8 2>/dev/null; sleep 100000', {
        linux: { resources },
      }),
    );
    await until('it is filled', async () => (await pods.ask(id, 'ls /dev/shm')).includes('fill'));
    const { stats } = await berthd.client.runtime('ContainerStats', { container_id: id });
    expect(Number(stats?.memory?.usage_bytes?.value)).toBeGreaterThan(8 << 20);
    expect(Number(stats?.memory?.available_bytes?.value)).toBeLessThan(40 << 20);
    expect(Number(stats?.cpu?.usage_core_nano_seconds?.value)).toBeGreaterThan(0);
    const whole = await berthd.client.runtime('PodSandboxStats', { pod_sandbox_id: pod.id });
    // Guest memory that was touched is on the host's account.
    expect(Number(whole.stats?.linux?.memory?.usage_bytes?.value)).toBeGreaterThan(64 << 20);
    const { pod_metrics } = await berthd.client.runtime('ListPodSandboxMetrics', {});
    const mine = pod_metrics.find(({ pod_sandbox_id }) => pod_sandbox_id === pod.id);
    const metrics = mine?.container_metrics.find(({ container_id }) => container_id === id)?.metrics ?? [];
    expect(metrics.find(({ name }) => name === 'container_memory_usage_bytes')).toBeDefined();
    await berthd.client.runtime('UpdateContainerResources', {
      container_id: id,
      linux: { memory_limit_in_bytes: 56 << 20 },
    });
    expect(await pods.ask(id, 'cat /sys/fs/cgroup/memory.max')).toBe(String(56 << 20));
  });

  it('says which container was killed for memory', async () => {
    const resources = { memory_limit_in_bytes: 16 << 20 };
    const ended = await pods.runToEnd(pod, sh('tail /dev/zero', { linux: { resources } }));
    expect(ended).toMatchObject({ exit_code: 137, reason: 'OOMKilled' });
  });

  it('stops its containers with grace, and without', async () => {
    const polite = await pods.start(pod, sh('trap "exit 9" TERM; echo ready; while :; do sleep 0.1; done'));
    await until(
      'the trap is set',
      async () => (await pods.log((await pods.status(polite)).log_path)).length > 0,
    );
    await pods.stop(polite, 30);
    expect((await pods.status(polite)).exit_code).toBe(9);
    const deaf = await pods.start(pod);
    await pods.stop(deaf, 0);
    expect(await pods.status(deaf)).toMatchObject({ state: 'CONTAINER_EXITED', exit_code: 137 });
    await pods.removeContainer(deaf);
  });

  it('lives through a kill of berthd, logs and all', async () => {
    const id = await pods.start(pod, sh('n=0; while sleep 0.2; do n=$((n+1)); echo $n; done'));
    const lines = async () => (await pods.log((await pods.status(id)).log_path)).map(({ text }) => text);
    await until('it writes', async () => (await lines()).length > 0);
    await berthd.stop('SIGKILL');
    await berthd.start();
    expect((await pods.podStatus(pod)).state).toBe('SANDBOX_READY');
    expect(await pods.ask(id, 'echo in it')).toBe('in it');
    const before = (await lines()).length;
    await until('the log goes on', async () => (await lines()).length > before + 3);
    const all = await lines();
    expect(all).toEqual(all.map((_, i) => String(i + 1)));
  });

  it('refuses devices of the node', async () => {
    const device = { host_path: '/dev/null', container_path: '/dev/x', permissions: 'r' };
    await expect(pods.create(pod, { ...IDLE, devices: [device] })).rejects.toThrow(/config.devices/);
  });
});
