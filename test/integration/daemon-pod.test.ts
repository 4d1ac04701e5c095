import { readFileSync, readlinkSync } from 'node:fs';
import { readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { hostname as nodeName } from 'node:os';
import path from 'node:path';
import { status } from '@grpc/grpc-js';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { ListContainersResponse__Output } from '../../proto/gen/runtime/v1/ListContainersResponse.ts';
import type { NamespaceOption } from '../../proto/gen/runtime/v1/NamespaceOption.ts';
import type { Spec } from '../../src/spec/types.ts';
import { namespaceInode } from '../../src/sys/namespaces.ts';
import { Berthd } from '../support/berthd.ts';
import { cgroupDirs } from '../support/host.ts';
import { traces } from '../support/leaks.ts';
import { callRaw, IDLE, OWN_PID, Pods, refusal, runs, SHARED_PID, sh, until } from '../support/pods.ts';

let berthd: Berthd;
let pods: Pods;

beforeAll(async () => {
  berthd = await Berthd.start();
  await berthd.importBusybox();
  pods = new Pods(berthd);
});
afterEach(async () => expect(await berthd.removeAllPods()).toEqual([]));
afterAll(async () => expect(await berthd.close()).toEqual([]));

const KINDS = ['net', 'uts', 'ipc', 'mnt', 'pid'];

/** The namespaces that a process is in, by kind. */
const namespacesOf = (pid: number | 'self') =>
  Object.fromEntries(KINDS.map((kind) => [kind, readlinkSync(`/proc/${pid}/ns/${kind}`)]));

const withNamespaces = (namespace_options: NamespaceOption) => ({
  linux: { cgroup_parent: berthd.cgroupParent, security_context: { namespace_options } },
});

describe('namespaces', () => {
  it('net, UTS and IPC are shared by a pod’s containers and not the node’s; mount and PID are each its own', async () => {
    const pod = await pods.run();
    const [a, b] = [
      namespacesOf(await pods.pid('container', await pods.start(pod))),
      namespacesOf(await pods.pid('container', await pods.start(pod))),
    ];
    const node = namespacesOf('self');
    const { namespaces } = await pods.info('pod', pod.id);
    for (const kind of ['net', 'uts', 'ipc']) {
      const pinned = `${kind}:[${namespaceInode(path.join(String(namespaces), kind))}]`;
      expect([a[kind], b[kind]], kind).toEqual([pinned, pinned]);
      expect(pinned, kind).not.toBe(node[kind]);
    }
    for (const kind of ['mnt', 'pid']) expect(new Set([a[kind], b[kind], node[kind]]).size, kind).toBe(3);
  });

  it('a pod whose containers do not share a PID namespace has no process of its own', async () => {
    const pod = await pods.run();
    const told = await pods.info('pod', pod.id);
    expect(told).toMatchObject({ pid: 0, processStatus: 'running', cgroup: berthd.cgroupParent });
    expect((await traces(berthd, berthd.pid)).processes).toEqual([]);
    const { linux } = told.runtimeSpec as Spec;
    const net = linux.namespaces.find(({ type }) => type === 'network')?.path;
    expect(net).toBe(path.join(String(told.namespaces), 'net'));
    // Of one that has a running container that is the process by which its namespaces are found.
    const id = await pods.start(pod);
    expect(await pods.pid('pod', pod.id)).toBe(await pods.pid('container', id));
    const linuxOf = { linux: { security_context: SHARED_PID } };
    const { kind, message } = await refusal(pods.create(pod, { ...IDLE, ...linuxOf }));
    expect({ kind, message }).toEqual({
      kind: 'invalid',
      message: expect.stringMatching(/namespace_options\.pid: cannot be POD: the sandbox/),
    });
  });

  it('a PID namespace shared by the pod has the pause process as PID 1, which reaps orphans', async () => {
    const pod = await pods.run(withNamespaces({ pid: 'POD' }));
    const security_context = { namespace_options: { pid: 'POD' as const } };
    const a = await pods.start(pod, { ...IDLE, linux: { security_context } });
    const b = await pods.start(pod, sh('exec sleep 77777', { linux: { security_context } }));
    const pause = namespacesOf(await pods.pid('pod', pod.id));
    expect(namespacesOf(await pods.pid('container', a)).pid).toBe(pause.pid);
    expect(await pods.ask(a, 'tr "\\0" " " </proc/1/cmdline')).toBe('/pause -P ');
    expect(await pods.ask(a, 'grep -lx "sleep.77777." /proc/[0-9]*/cmdline')).toMatch(/proc/);
    const orphan = await pods.ask(b, 'sleep 66666 >/dev/null 2>&1 & echo $!');
    expect(await pods.ask(a, `awk '/^PPid/{print $2}' /proc/${orphan}/status; kill ${orphan}`)).toBe('1');
    await until('the orphan is reaped', async () => {
      const { code } = await pods.exec(a, ['test', '-e', `/proc/${orphan}`]);
      return code === 1;
    });
    // The first process's end is the container's, also where it is not PID 1.
    await pods.stop(b);
    expect((await pods.status(b)).state).toBe('CONTAINER_EXITED');
    expect((await pods.status(a)).state).toBe('CONTAINER_RUNNING');
  });

  it('of the node are what host network, IPC and PID mean', async () => {
    const options = { network: 'NODE', ipc: 'NODE', pid: 'NODE' } as const;
    const pod = await pods.run({ ...withNamespaces(options), hostname: '' });
    const id = await pods.start(pod, {
      ...IDLE,
      linux: { security_context: { namespace_options: options } },
    });
    const node = namespacesOf('self');
    const { mnt, ...shared } = namespacesOf(await pods.pid('container', id));
    expect(mnt).not.toBe(node.mnt);
    expect(shared).toEqual({ net: node.net, uts: node.uts, ipc: node.ipc, pid: node.pid });
    expect(await pods.ask(id, 'hostname')).toBe(nodeName());
    const said = await pods.podStatus(pod);
    expect(said.network).toEqual({ ip: '', additional_ips: [] });
    expect(said.linux?.namespaces?.options).toMatchObject(options);
    expect(
      await readdir(path.join(berthd.dir, 'ipam'), { recursive: true }).catch(() => []),
    ).not.toContainEqual(expect.stringMatching(/\d+\.\d+\.\d+\.\d+$/));
  });
});

describe('files and kernel settings', () => {
  it('resolv.conf is the node’s for a pod that brings no DNS configuration', async () => {
    const pod = await pods.run();
    const node = await readFile('/etc/resolv.conf', 'utf8').catch(() => '');
    expect(`${await pods.ask(await pods.start(pod), 'cat /etc/resolv.conf')}\n`).toBe(node || '\n');
  });

  it('/dev/shm is one of 64 MiB for all containers of the pod, and no other pod’s', async () => {
    const [pod, other] = [await pods.run(), await pods.run()];
    const [a, b, c] = [await pods.start(pod), await pods.start(pod), await pods.start(other)];
    await pods.ask(a, 'echo shared > /dev/shm/file');
    expect(await pods.ask(b, 'cat /dev/shm/file')).toBe('shared');
    expect(await pods.ask(c, 'ls -A /dev/shm')).toBe('');
    expect(await pods.ask(a, "df -P /dev/shm | awk 'END{print $2}'")).toBe(String(64 * 1024));
    const mount = await pods.ask(a, "grep ' /dev/shm ' /proc/self/mountinfo");
    for (const option of ['nosuid', 'nodev', 'noexec']) expect(mount).toContain(option);
    const { code, stderr } = await pods.exec(a, [
      'dd',
      'if=/dev/zero',
      'of=/dev/shm/big',
      'bs=1M',
      'count=65',
    ]);
    expect([code, stderr]).toEqual([1, expect.stringContaining('No space left')]);
  });

  it('/dev/shm of a pod with the node’s IPC is the node’s', async () => {
    const pod = await pods.run(withNamespaces({ ipc: 'NODE' }));
    const id = await pods.start(pod, {
      ...IDLE,
      linux: { security_context: { namespace_options: { ipc: 'NODE', pid: 'CONTAINER' } } },
    });
    const file = `/dev/shm/berth-${berthd.tag}`;
    await writeFile(file, 'of the node');
    try {
      expect(await pods.ask(id, `cat ${file}`)).toBe('of the node');
    } finally {
      await rm(file);
    }
  });

  it('sysctls are set for the pod alone', async () => {
    const before = readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8');
    const pod = await pods.run({
      linux: {
        cgroup_parent: berthd.cgroupParent,
        sysctls: {
          'net.ipv4.ip_local_port_range': '20000 20999',
          'kernel.shm_rmid_forced': '1',
          'fs/mqueue/msg_max': '17',
          // There as soon as the network is.
          'net.ipv4.conf.eth0.arp_notify': '1',
        },
      },
    });
    const id = await pods.start(pod);
    expect(
      await pods.ask(
        id,
        'cd /proc/sys; cat net/ipv4/ip_local_port_range kernel/shm_rmid_forced fs/mqueue/msg_max net/ipv4/conf/eth0/arp_notify',
      ),
    ).toBe('20000\t20999\n1\n17\n1');
    expect(readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8')).toBe(before);
  });

  it.each([
    ['net.ipv4.ip_local_port_range', 'many', /cannot be "many": EINVAL/],
    ['net.ipv4.nonsense', '1', /there is no such sysctl/],
  ])('the sysctl %s is refused the value %s by its name', async (name, value, problem) => {
    const refused = await refusal(pods.run({ linux: { sysctls: { [name]: value } } }));
    expect(refused.kind).toBe('invalid');
    expect(refused.message).toContain(`config.linux.sysctls["${name}"]: `);
    expect(refused.message).toMatch(problem);
  });

  it('cgroup_parent is where the pod’s processes are, in every hierarchy; parents made for it go with it', async () => {
    const parent = `${berthd.cgroupParent}/kubepods/pod-x`;
    const pod = await pods.run({ linux: { cgroup_parent: parent, security_context: SHARED_PID } });
    const id = await pods.start(pod);
    const pids = [await pods.pid('pod', pod.id), await pods.pid('container', id)];
    for (const [i, name] of [pod.id, id].entries()) {
      const lines = readFileSync(`/proc/${pids[i]}/cgroup`, 'utf8').trim().split('\n');
      const used = lines.map((line) => line.slice(line.indexOf(':', 3) + 1));
      for (const controller of ['memory', 'cpu', 'pids']) {
        const line = lines.find((l) => l.split(':')[1]?.split(',').includes(controller)) ?? lines.at(-1);
        expect(line, controller).toContain(`:${parent}/`);
      }
      expect(used.filter((cgroup) => cgroup.startsWith(`${parent}/`)).every((c) => c.includes(name))).toBe(
        true,
      );
    }
    await pods.removePod(pod);
    expect(await cgroupDirs(berthd.cgroupParent)).toEqual([]);
  });
});

describe('status and lists', () => {
  it('PodSandboxStatus has all that the pod was made with', async () => {
    const before = BigInt(Date.now()) * 1_000_000n;
    const labels = { app: 'web', 'io.kubernetes.pod.uid': 'u-1', odd: 'ünïcode ☃ "quoted"\n' };
    const annotations = { 'kubernetes.io/config.seen': '2026-01-02T03:04:05Z', empty: '' };
    const metadata = { name: 'full', namespace: 'ns', uid: 'u-1', attempt: 3 };
    const linux = { security_context: SHARED_PID };
    const pod = await pods.run({ metadata, labels, annotations, linux }, 'runc');
    const said = await pods.podStatus(pod);
    expect(said).toMatchObject({
      id: pod.id,
      metadata,
      state: 'SANDBOX_READY',
      labels,
      annotations,
      runtime_handler: 'runc',
      linux: { namespaces: { options: { network: 'POD', pid: 'POD', ipc: 'POD' } } },
    });
    expect(pod.id).toMatch(/^[0-9a-f]{64}$/);
    expect(BigInt(said.created_at)).toBeGreaterThanOrEqual(before);
    expect(BigInt(said.created_at)).toBeLessThanOrEqual(BigInt(Date.now() + 1) * 1_000_000n);
    const { items } = await berthd.client.runtime('ListPodSandbox', {});
    const { created_at, state } = said;
    expect(items).toEqual([
      { id: pod.id, metadata, state, created_at, labels, annotations, runtime_handler: 'runc' },
    ]);
    const info = await pods.info('pod', pod.id);
    expect(readFileSync(`/proc/${info.pid}/cmdline`, 'utf8')).toBe('/pause\0-P\0');
  });

  it('ListPodSandbox filters by id, state and labels, and by all together', async () => {
    const a = await pods.run({ labels: { app: 'a', tier: 'x' } });
    const b = await pods.run({ labels: { app: 'b', tier: 'x' } });
    const c = await pods.run({ labels: { app: 'a' } });
    await pods.stopPod(c);
    const list = async (filter: object) =>
      (await berthd.client.runtime('ListPodSandbox', { filter })).items.map(({ id }) => id).sort();
    const ready = { state: 'SANDBOX_READY' } as const;
    const notReady = { state: 'SANDBOX_NOTREADY' } as const;
    const expected: [object, string[]][] = [
      [{}, [a.id, b.id, c.id]],
      [{ id: b.id }, [b.id]],
      [{ id: 'f'.repeat(64) }, []],
      [{ state: ready }, [a.id, b.id]],
      [{ state: notReady }, [c.id]],
      [{ label_selector: { app: 'a' } }, [a.id, c.id]],
      [{ label_selector: { app: 'a', tier: 'x' } }, [a.id]],
      [{ label_selector: { app: '' } }, []],
      [{ label_selector: { constructor: 'a' } }, []],
      [{ state: ready, label_selector: { app: 'a' } }, [a.id]],
      [{ id: c.id, state: ready }, []],
      [{ id: c.id, state: notReady, label_selector: { app: 'a' } }, [c.id]],
    ];
    for (const [filter, ids] of expected)
      expect(await list(filter), JSON.stringify(filter)).toEqual(ids.sort());
  });

  it('streamed lists are the lists, filters too', async () => {
    const pod = await pods.run({ labels: { app: 'a' } });
    const other = await pods.run();
    const id = await pods.start(pod);
    await pods.create(other);
    const { items } = await berthd.client.runtime('ListPodSandbox', {});
    const { containers } = await berthd.client.runtime('ListContainers', {});
    const { images } = await berthd.client.image('ListImages', {});
    expect([items.length, containers.length, images.length]).toEqual([2, 2, 1]);
    expect(await callRaw(berthd, 'StreamPodSandboxes', {})).toEqual([{ pod_sandboxes: items }]);
    expect(await callRaw(berthd, 'StreamContainers', {})).toEqual([{ containers }]);
    expect(await callRaw(berthd, 'StreamImages', {})).toEqual([{ images }]);
    expect(await callRaw(berthd, 'StreamPodSandboxes', { filter: { label_selector: { app: 'a' } } })).toEqual(
      [{ pod_sandboxes: items.filter((item) => item.id === pod.id) }],
    );
    const filtered = (await callRaw(berthd, 'StreamContainers', {
      filter: { state: { state: 'CONTAINER_RUNNING' } },
    })) as ListContainersResponse__Output[];
    expect(filtered.flatMap((m) => m.containers.map((c) => c.id))).toEqual([id]);
    const stats = (await callRaw(berthd, 'StreamContainerStats', {})) as {
      container_stats: { attributes: { id: string } }[];
    }[];
    expect(stats.flatMap((m) => m.container_stats.map((s) => s.attributes.id)).sort()).toEqual(
      containers.map((c) => c.id).sort(),
    );
  });

  it('a list that is too big for one message can be streamed', async () => {
    const pod = await pods.run();
    const annotations = { big: 'x'.repeat(1_000_000) };
    for (let i = 0; i < 18; i++) await pods.create(pod, { ...IDLE, annotations });
    expect((await refusal(berthd.client.runtime('ListContainers', {}))).kind).toBe('exhausted');
    const messages = (await callRaw(berthd, 'StreamContainers', {})) as ListContainersResponse__Output[];
    expect(messages.flatMap((m) => m.containers).length).toBe(18);
    const sizes = messages.map((m) => JSON.stringify(m).length);
    expect(Math.max(...sizes)).toBeLessThan(4 << 20);
  });

  it('what is not built answers UNIMPLEMENTED', async () => {
    const error = await callRaw(berthd, 'CheckpointContainer', {}).catch((e: unknown) => e);
    expect(error).toMatchObject({
      code: status.UNIMPLEMENTED,
      details: expect.stringContaining('CheckpointContainer'),
    });
  });
});

describe('the end of a pod', () => {
  it('StopPodSandbox ends all of its processes and frees its address', async () => {
    const pod = await pods.run({ linux: { security_context: SHARED_PID } });
    const id = await pods.start(pod);
    const before = await pods.podStatus(pod);
    const [pause, first] = [await pods.pid('pod', pod.id), await pods.pid('container', id)];
    await pods.stopPod(pod);
    expect([pause, first].filter(runs)).toEqual([]);
    const addresses = await readdir(path.join(berthd.dir, 'ipam', `berth-${berthd.tag}`));
    expect(addresses).not.toContain(before.network?.ip);
    await pods.removePod(pod);
  });

  it('a removal while others stop and remove the same pod is one removal', async () => {
    for (let round = 0; round < 5; round++) {
      const pod = await pods.run();
      const id = await pods.start(pod);
      await Promise.all([
        pods.stop(id, 5),
        pods.stopPod(pod),
        pods.removePod(pod),
        pods.removeContainer(id),
        pods.stop(id, 0),
        pods.stopPod(pod),
        pods.removePod(pod),
      ]);
      expect((await refusal(pods.podStatus(pod))).kind).toBe('notFound');
    }
  });

  it('eight calls for one pod at once make one; a caller that gives up finds it made', async () => {
    const config = pods.config();
    const calls = Array.from({ length: 8 }, () => berthd.client.runtime('RunPodSandbox', { config }));
    const ids = new Set((await Promise.all(calls)).map(({ pod_sandbox_id }) => pod_sandbox_id));
    expect(ids.size).toBe(1);
    const second = pods.config();
    const hasty = refusal(berthd.client.runtime('RunPodSandbox', { config: second }, { timeoutMs: 15 }));
    expect((await hasty).kind).toBe('deadline');
    const { pod_sandbox_id } = await berthd.client.runtime('RunPodSandbox', { config: second });
    const { items } = await berthd.client.runtime('ListPodSandbox', {});
    expect(items.filter((item) => item.metadata?.name === second.metadata?.name).map(({ id }) => id)).toEqual(
      [pod_sandbox_id],
    );
  });

  it('a pod with eight containers made at once is whole', async () => {
    const pod = await pods.run();
    const ids = await Promise.all(
      Array.from({ length: 8 }, (_, i) =>
        pods.start(
          pod,
          sh(`echo ${i} > /dev/shm/${i}; exec sleep 100000`, { linux: { security_context: OWN_PID } }),
        ),
      ),
    );
    expect(new Set(ids).size).toBe(8);
    await until('all have begun', async () => (await pods.ask(ids[0] ?? '', 'ls /dev/shm | wc -l')) === '8');
    await pods.stopPod(pod);
    for (const id of ids) expect((await pods.status(id)).state).toBe('CONTAINER_EXITED');
  });
});
