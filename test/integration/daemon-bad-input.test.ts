import { existsSync, readdirSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { status } from '@grpc/grpc-js';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { ContainerConfig } from '../../proto/gen/runtime/v1/ContainerConfig.ts';
import type { LinuxContainerResources } from '../../proto/gen/runtime/v1/LinuxContainerResources.ts';
import type { LinuxContainerSecurityContext } from '../../proto/gen/runtime/v1/LinuxContainerSecurityContext.ts';
import type { LinuxSandboxSecurityContext } from '../../proto/gen/runtime/v1/LinuxSandboxSecurityContext.ts';
import type { PodSandboxConfig } from '../../proto/gen/runtime/v1/PodSandboxConfig.ts';
import type { ErrorKind } from '../../src/errors.ts';
import { Berthd } from '../support/berthd.ts';
import { leftovers } from '../support/leaks.ts';
import { callRaw, containerConfig, IDLE, Pods, refusal } from '../support/pods.ts';

let berthd: Berthd;
let pods: Pods;

beforeAll(async () => {
  berthd = await Berthd.start();
  await berthd.importBusybox();
  pods = new Pods(berthd);
  await writeFile(path.join(berthd.dir, 'no.json'), 'this is no JSON');
});
afterEach(async () => expect(await berthd.removeAllPods()).toEqual([]));
afterAll(async () => expect(await berthd.close()).toEqual([]));

const ABSENT = 'f'.repeat(64);
const MEBI = 1 << 20;
/** A number that no value of the enum has; the client's types know only names. */
const noValue = 99 as never;

describe('RunPodSandbox refuses, naming the field, and leaves nothing:', () => {
  const metadata = (more: object) => ({
    metadata: { name: 'n', namespace: 'ns', uid: 'u', attempt: 0, ...more },
  });
  const security = (security_context: LinuxSandboxSecurityContext) => ({ linux: { security_context } });
  const namespaces = (namespace_options: object) => security({ namespace_options });
  const port = (more: object) => ({
    port_mappings: [{ container_port: 80 }, { container_port: 80, ...more }],
  });
  const rows: [string, PodSandboxConfig, RegExp, ErrorKind?][] = [
    ['no metadata', { metadata: null }, /^config\.metadata: /],
    ['no name', metadata({ name: '' }), /^config\.metadata\.name: /],
    ['no namespace', metadata({ namespace: '' }), /^config\.metadata\.namespace: /],
    ['a slash in the name', metadata({ name: 'a/b' }), /^config\.metadata\.name: /],
    ['the name ..', metadata({ name: '..' }), /^config\.metadata\.name: /],
    ['NUL in the name', metadata({ name: 'a\0b' }), /^config\.metadata\.name: /],
    ['a long name', metadata({ name: 'n'.repeat(300) }), /^config\.metadata\.name: /],
    ['a slash in the uid', metadata({ uid: '../u' }), /^config\.metadata\.uid: /],
    ['a host name of two words', { hostname: 'a b' }, /^config\.hostname: /],
    ['a host name with a line of hosts', { hostname: 'a\n10.0.0.1 bank' }, /^config\.hostname: /],
    ['a long host name', { hostname: 'h'.repeat(65) }, /^config\.hostname: /],
    ['a relative log directory', { log_directory: 'logs' }, /^config\.log_directory: /],
    ['a climbing log directory', { log_directory: '/var/log/../../etc' }, /^config\.log_directory: /],
    [
      'a DNS server by name',
      { dns_config: { servers: ['1.1.1.1', 'dns'] } },
      /^config\.dns_config\.servers\[1\]: /,
    ],
    ['a search of two', { dns_config: { searches: ['a b'] } }, /^config\.dns_config\.searches\[0\]: /],
    [
      'an option with a line of its own',
      { dns_config: { options: ['ndots:5\nnameserver 6.6.6.6'] } },
      /^config\.dns_config\.options\[0\]: /,
    ],
    [
      'searches without end',
      { dns_config: { searches: Array.from({ length: 300 }, (_, i) => `d${i}`) } },
      /^config\.dns_config\.searches: /,
    ],
    ['a port beyond all', port({ host_port: 70_000 }), /^config\.port_mappings\[1\]\.host_port: /],
    ['a negative port', port({ container_port: -1 }), /^config\.port_mappings\[1\]\.container_port: /],
    ['no port', port({ container_port: 0, host_port: 1 }), /^config\.port_mappings\[1\]\.container_port: /],
    ['a protocol of no kind', port({ protocol: noValue }), /^config\.port_mappings\[1\]\.protocol: /],
    ['a host IP by name', port({ host_ip: 'localhost' }), /^config\.port_mappings\[1\]\.host_ip: /],
    [
      'ports without end',
      { port_mappings: Array.from({ length: 5000 }, () => ({ container_port: 1 })) },
      /^config\.port_mappings: /,
    ],
    ['labels of 10 MiB', { labels: { big: 'x'.repeat(10 * MEBI) } }, /^config\.labels: /],
    ['annotations of 10 MiB', { annotations: { big: 'x'.repeat(10 * MEBI) } }, /^config\.annotations: /],
    ['a label without a name', { labels: { '': 'x' } }, /^config\.labels: /],
    ['a climbing cgroup', { linux: { cgroup_parent: '/a/../../b' } }, /^config\.linux\.cgroup_parent: /],
    ['a relative climbing cgroup', { linux: { cgroup_parent: '../b' } }, /^config\.linux\.cgroup_parent: /],
    ['a line in the cgroup', { linux: { cgroup_parent: '/a\nb' } }, /^config\.linux\.cgroup_parent: /],
    [
      'a slice for cgroupfs',
      { linux: { cgroup_parent: 'kubepods-x.slice' } },
      /^config\.linux\.cgroup_parent: .*slice/,
    ],
    ['a long cgroup', { linux: { cgroup_parent: `/${'c'.repeat(256)}` } }, /^config\.linux\.cgroup_parent: /],
    [
      'a sysctl of the node',
      { linux: { sysctls: { 'kernel.panic': '1' } } },
      /^config\.linux\.sysctls\["kernel\.panic"\]: /,
    ],
    ['a climbing sysctl', { linux: { sysctls: { 'net/../kernel/panic': '1' } } }, /^config\.linux\.sysctls/],
    [
      'a network sysctl for the node’s network',
      { linux: { sysctls: { 'net.ipv4.ip_forward': '1' }, ...namespaces({ network: 'NODE' }).linux } },
      /^config\.linux\.sysctls\["net\.ipv4\.ip_forward"\]: /,
    ],
    [
      'a network of no kind',
      namespaces({ network: noValue }),
      /namespace_options\.network: 99 is none of POD, NODE/,
    ],
    ['the target of nobody', namespaces({ pid: 'TARGET' }), /namespace_options\.pid: /],
    [
      'a user namespace',
      namespaces({
        userns_options: {
          mode: 'POD',
          uids: [{ host_id: 65536, container_id: 0, length: 65536 }],
          gids: [{ host_id: 65536, container_id: 0, length: 65536 }],
        },
      }),
      /userns_options: /,
      'unimplemented',
    ],
    ['a negative user', security({ run_as_user: { value: -5 } }), /security_context\.run_as_user: /],
    ['a group alone', security({ run_as_group: { value: 5 } }), /security_context\.run_as_group: /],
    ['a negative group', security({ supplemental_groups: [1, -1] }), /supplemental_groups\[1\]: /],
    [
      'a policy of no kind',
      security({ supplemental_groups_policy: noValue }),
      /supplemental_groups_policy: /,
    ],
    [
      'a profile without a name',
      security({ seccomp: { profile_type: 'Localhost' } }),
      /seccomp\.localhost_ref: /,
    ],
    [
      'a relative profile',
      security({ seccomp: { profile_type: 'Localhost', localhost_ref: 'p.json' } }),
      /seccomp\.localhost_ref: /,
    ],
    ['a profile of no kind', security({ seccomp: { profile_type: noValue } }), /seccomp\.profile_type: /],
    [
      'a profile that is absent',
      security({ seccomp: { profile_type: 'Localhost', localhost_ref: '/no/such/profile.json' } }),
      /seccomp\.localhost_ref: .*\/no\/such\/profile\.json/,
    ],
    [
      'negative overhead',
      { linux: { overhead: { cpu_shares: -1 } } },
      /^config\.linux\.overhead\.cpu_shares: /,
    ],
    [
      'negative memory',
      { linux: { resources: { memory_limit_in_bytes: -2 } } },
      /linux\.resources\.memory_limit_in_bytes: /,
    ],
  ];
  it('each of them', { timeout: 120_000 }, async () => {
    const wrong: unknown[] = [];
    for (const [name, more, message, kind = 'invalid'] of rows) {
      const config = { ...pods.config(more), linux: { cgroup_parent: berthd.cgroupParent, ...more.linux } };
      const said = await refused(berthd.client.runtime('RunPodSandbox', { config }));
      const { items } = await berthd.client.runtime('ListPodSandbox', {});
      const left = [...items, ...readdirSync(path.join(berthd.dir, 'state/sandboxes'))];
      if (said.kind !== kind || !message.test(said.message) || said.message.length > 1000 || left.length > 0)
        wrong.push({ name, ...said, left });
    }
    expect(wrong).toEqual([]);
    expect(await leftovers(berthd)).toEqual([]);
  });

  it('no configuration, an unknown handler, and a message beyond 16 MiB', async () => {
    const { client } = berthd;
    expect(await refusal(client.runtime('RunPodSandbox', {}))).toEqual({
      kind: 'invalid',
      message: expect.stringMatching(/^config: /),
    });
    expect(await refusal(pods.run({}, 'kata'))).toEqual({
      kind: 'invalid',
      message: expect.stringMatching(/^runtime_handler: .*"kata".*runc/),
    });
    const config = pods.config({ labels: { big: 'x'.repeat(17 * MEBI) } });
    const error = await callRaw(berthd, 'RunPodSandbox', { config }).catch((e: unknown) => e);
    expect(error).toMatchObject({ code: status.RESOURCE_EXHAUSTED });
    // A file that is read only when the pod is being made.
    const seccomp = { profile_type: 'Localhost', localhost_ref: path.join(berthd.dir, 'no.json') } as const;
    const said = await refusal(
      pods.run({ linux: { cgroup_parent: berthd.cgroupParent, security_context: { seccomp } } }),
    );
    expect(said.message).toContain('no.json');
    expect(await leftovers(berthd)).toEqual([]);
  });
});

describe('CreateContainer refuses, naming the field, and leaves nothing:', () => {
  const linux = (security_context: LinuxContainerSecurityContext) => ({ linux: { security_context } });
  const resources = (r: LinuxContainerResources) => ({ linux: { resources: r } });
  const mount = (more: object) => ({
    mounts: [
      { host_path: '/tmp', container_path: '/a' },
      { host_path: '/tmp', container_path: '/b', ...more },
    ],
  });
  const device = (more: object) => ({
    devices: [{ host_path: '/dev/null', container_path: '/dev/x', ...more }],
  });
  const sc = String.raw`^config\.linux\.security_context\.`;
  const res = String.raw`^config\.linux\.resources\.`;
  const rows: [string, ContainerConfig, RegExp, ErrorKind?][] = [
    ['no metadata', { metadata: null }, /^config\.metadata: /],
    ['no name', { metadata: { name: '' } }, /^config\.metadata\.name: /],
    ['a slash in the name', { metadata: { name: '../x' } }, /^config\.metadata\.name: /],
    ['no image', { image: null }, /^config\.image/],
    ['an empty image', { image: { image: '' } }, /^config\.image\.image: /],
    [
      'an absent image',
      { image: { image: 'localhost/no/such:1' } },
      /image "localhost\/no\/such:1"/,
      'notFound',
    ],
    ['NUL in the image', { image: { image: 'a\0b' } }, /image/],
    ['a climbing log', { log_path: '../../etc/cron.d/x' }, /^config\.log_path: /],
    ['a log that climbs later', { log_path: 'a/../../x' }, /^config\.log_path: /],
    ['an absolute log', { log_path: '/etc/cron.d/x' }, /^config\.log_path: /],
    ['a log that is a directory', { log_path: 'a/' }, /^config\.log_path: /],
    ['NUL in the log', { log_path: 'a\0' }, /^config\.log_path: /],
    ['NUL in the command', { command: ['sh', 'a\0b'] }, /^config\.command/],
    ['NUL in the arguments', { command: ['sh'], args: ['a\0b'] }, /^config\.(args|command)/],
    [
      'a variable without name',
      { envs: [{ key: '', value: Buffer.from('x') }] },
      /^config\.envs\[0\]\.key: /,
    ],
    [
      'a variable named with =',
      { envs: [{ key: 'a=b', value: Buffer.from('x') }] },
      /^config\.envs\[0\]\.key: /,
    ],
    ['NUL in a variable', { envs: [{ key: 'a', value: Buffer.from('x\0') }] }, /^config\.envs\[0\]/],
    [
      'a variable of bytes',
      { envs: [{ key: 'a', value: Buffer.from([0xff]) }] },
      /^config\.envs\[0\]\.value: .*UTF-8/,
    ],
    [
      'variables without end',
      { envs: Array.from({ length: 70_000 }, () => ({ key: 'a', value: Buffer.alloc(0) })) },
      /^config\.envs: /,
    ],
    ['a relative directory', { working_dir: 'tmp' }, /^config\.working_dir: /],
    ['NUL in the directory', { working_dir: '/a\0' }, /^config\.working_dir: /],
    ['labels of 10 MiB', { labels: { big: 'x'.repeat(10 * MEBI) } }, /^config\.labels: /],
    ['annotations of 10 MiB', { annotations: { big: 'x'.repeat(10 * MEBI) } }, /^config\.annotations: /],
    ['a mount over all', mount({ container_path: '/' }), /^config\.mounts\[1\]\.container_path: /],
    [
      'a mount over all by detour',
      mount({ container_path: '/a/..' }),
      /^config\.mounts\[1\]\.container_path: /,
    ],
    ['a relative mount', mount({ container_path: 'a' }), /^config\.mounts\[1\]\.container_path: /],
    ['a mount of nothing', mount({ host_path: '' }), /^config\.mounts\[1\]\.host_path: /],
    ['a mount of a relative path', mount({ host_path: 'tmp' }), /^config\.mounts\[1\]\.host_path: /],
    ['NUL in a mount', mount({ host_path: '/tmp\0' }), /^config\.mounts\[1\]\.host_path: /],
    [
      'a mount from inside of a file',
      mount({ host_path: '/etc/passwd/x' }),
      /^config\.mounts\[1\]\.host_path: .*\/etc\/passwd/,
    ],
    ['a propagation of no kind', mount({ propagation: noValue }), /^config\.mounts\[1\]\.propagation: 99/],
    [
      'recursion without readonly',
      mount({ recursive_read_only: true }),
      /^config\.mounts\[1\]\.recursive_read_only: /,
    ],
    [
      'mounts without end',
      { mounts: Array.from({ length: 5000 }, (_, i) => ({ host_path: '/tmp', container_path: `/m${i}` })) },
      /^config\.mounts: /,
    ],
    ['an absent device', device({ host_path: '/dev/no-such' }), /^config\.devices\[0\]\.host_path: /],
    ['a device that is a file', device({ host_path: '/etc/passwd' }), /^config\.devices\[0\]\.host_path: /],
    ['permissions of no kind', device({ permissions: 'rwx' }), /^config\.devices\[0\]\.permissions: /],
    [
      'an SELinux type',
      linux({ selinux_options: { type: 'container_t', level: 's0:c1,c2' } }),
      /security_context\.selinux_options\.type: SELinux labels cannot be set: this host has no SELinux/,
      'unimplemented',
    ],
    ['a CDI device without a class', { CDI_devices: [{ name: 'v=d' }] }, /^config\.CDI_devices\[0\]\.name: /],
    [
      'a CDI device that is not there',
      { CDI_devices: [{ name: 'berth.example/none=d' }] },
      /^config\.CDI_devices\[0\]\.name: no CDI device berth\.example\/none=d/,
    ],
    ['a signal of no kind', { stop_signal: noValue }, /^config\.stop_signal: /],
    ['oom_score_adj beyond all', resources({ oom_score_adj: 5000 }), new RegExp(`${res}oom_score_adj: `)],
    ['a negative period', resources({ cpu_period: -1 }), new RegExp(`${res}cpu_period: `)],
    ['a negative quota', resources({ cpu_quota: -2 }), new RegExp(`${res}cpu_quota: `)],
    [
      'a negative limit',
      resources({ memory_limit_in_bytes: -5 }),
      new RegExp(`${res}memory_limit_in_bytes: `),
    ],
    ['CPUs by name', resources({ cpuset_cpus: 'all' }), new RegExp(`${res}cpuset_cpus: `)],
    [
      'huge pages by name',
      resources({ hugepage_limits: [{ page_size: 'big' }] }),
      new RegExp(`${res}hugepage_limits`),
    ],
    ['a cgroup file elsewhere', resources({ unified: { '../x.y': '1' } }), new RegExp(`${res}unified: `)],
    ['a negative user', linux({ run_as_user: { value: -1 } }), new RegExp(`${sc}run_as_user: `)],
    ['a user beyond all', linux({ run_as_user: { value: 2 ** 32 } }), new RegExp(`${sc}run_as_user: `)],
    [
      'a user that the image lacks',
      linux({ run_as_username: 'nobody-here' }),
      new RegExp(`${sc}run_as_username: .*/etc/passwd`),
    ],
    [
      'a user twice',
      linux({ run_as_user: { value: 1 }, run_as_username: 'app' }),
      new RegExp(`${sc}run_as_username: `),
    ],
    ['a group alone', linux({ run_as_group: { value: 1 } }), new RegExp(`${sc}run_as_group: `)],
    [
      'a capability of no kind',
      linux({ capabilities: { add_capabilities: ['FLY'] } }),
      new RegExp(`${sc}capabilities.*FLY`),
    ],
    ['privilege in a plain pod', linux({ privileged: true }), new RegExp(`${sc}privileged: `)],
    ['a relative masked path', linux({ masked_paths: ['proc'] }), new RegExp(`${sc}masked_paths\\[0\\]: `)],
    [
      'an absent profile',
      linux({ seccomp: { profile_type: 'Localhost', localhost_ref: '/no/such.json' } }),
      new RegExp(`${sc}seccomp\\.localhost_ref: .*/no/such\\.json`),
    ],
    [
      'AppArmor where there is none',
      linux({ apparmor: { profile_type: 'Localhost', localhost_ref: 'some' } }),
      new RegExp(`${sc}apparmor`),
    ],
    [
      'a target without id',
      linux({ namespace_options: { pid: 'TARGET' } }),
      /namespace_options\.target_id: /,
    ],
    [
      'a target that is absent',
      linux({ namespace_options: { pid: 'TARGET', target_id: ABSENT } }),
      /namespace_options\.target_id: /,
    ],
  ];
  it('each of them', { timeout: 120_000 }, async () => {
    const pod = await pods.run();
    const places = ['state/containers', 'root/containers', 'state/exits'].map((dir) =>
      path.join(berthd.dir, dir),
    );
    const wrong: unknown[] = [];
    for (const [name, more, message, kind = 'invalid'] of rows) {
      const config = containerConfig({ ...IDLE, ...more });
      const said = await refused(
        berthd.client.runtime('CreateContainer', {
          pod_sandbox_id: pod.id,
          config,
          sandbox_config: pod.config,
        }),
      );
      const left = places.filter(existsSync).flatMap((place) => readdirSync(place));
      const { containers } = await berthd.client.runtime('ListContainers', {});
      if (said.kind !== kind || !message.test(said.message) || left.length + containers.length > 0)
        wrong.push({ name, ...said, left, containers });
      for (const { id } of containers) await pods.removeContainer(id);
    }
    expect(wrong).toEqual([]);
    // The pod has suffered nothing.
    expect((await pods.runToEnd(pod, { command: ['true'] })).exit_code).toBe(0);
  });
});

describe('ids', () => {
  const id: Record<string, string> = {
    StopPodSandbox: 'pod_sandbox_id',
    RemovePodSandbox: 'pod_sandbox_id',
    PodSandboxStatus: 'pod_sandbox_id',
    CreateContainer: 'pod_sandbox_id',
    StartContainer: 'container_id',
    StopContainer: 'container_id',
    RemoveContainer: 'container_id',
    ContainerStatus: 'container_id',
    ExecSync: 'container_id',
    ReopenContainerLog: 'container_id',
    UpdateContainerResources: 'container_id',
    ContainerStats: 'container_id',
  };
  const rest: Record<string, object> = {
    CreateContainer: {
      config: containerConfig(),
      sandbox_config: { metadata: { name: 'x', namespace: 'y' } },
    },
    ExecSync: { cmd: ['true'] },
    UpdateContainerResources: { linux: { cpu_shares: 2 } },
  };
  it.each(Object.entries(id))('%s refuses what is no id, and knows absent ones', async (call, field) => {
    const ask = (value: string) =>
      callRaw(berthd, call, { ...rest[call], [field]: value }).then(
        () => ({ code: status.OK, details: '' }),
        (e: { code: number; details: string }) => ({ code: e.code, details: e.details }),
      );
    for (const value of ['', '../../etc', 'a/b', 'a\0b', 'ü', 'a'.repeat(1000), '. .'])
      expect(await ask(value), JSON.stringify(value)).toEqual({
        code: status.INVALID_ARGUMENT,
        details: expect.stringMatching(`^${field}: `),
      });
    const repeatable = ['StopPodSandbox', 'RemovePodSandbox', 'StopContainer', 'RemoveContainer'].includes(
      call,
    );
    const { code, details } = await ask(ABSENT);
    expect(code).toBe(repeatable ? status.OK : status.NOT_FOUND);
    if (!repeatable) expect(details).toContain('not found');
  });
});

it('numbers out of range and absent members of other requests are named', async () => {
  const pod = await pods.run();
  const container_id = await pods.start(pod);
  const { client } = berthd;
  const update = (linux: LinuxContainerResources | null) =>
    refusal(client.runtime('UpdateContainerResources', { container_id, linux }));
  expect((await update(null)).message).toMatch(/^linux: /);
  for (const field of ['cpu_period', 'cpu_quota', 'cpu_shares', 'memory_limit_in_bytes'] as const)
    expect(await update({ [field]: -7 })).toEqual({
      kind: 'invalid',
      message: expect.stringMatching(`^linux\\.${field}: `),
    });
  expect(await refusal(client.runtime('StopContainer', { container_id, timeout: -1 }))).toEqual({
    kind: 'invalid',
    message: expect.stringMatching(/^timeout: /),
  });
  expect((await pods.status(container_id)).state).toBe('CONTAINER_RUNNING');
  const nul = await refusal(pods.exec(container_id, ['echo', 'a\0b']));
  expect(nul).toEqual({ kind: 'invalid', message: expect.stringMatching(/^cmd/) });
  // The kernel's own refusal comes when the command has a process already.
  expect(await pods.exec(container_id, ['echo', 'x'.repeat(200_000)])).toMatchObject({
    code: 1,
    stderr: expect.stringMatching(/argument list too long/i),
  });
  const limits = { memory_limit_in_bytes: 16 << 20, memory_swap_limit_in_bytes: 16 << 20 };
  expect((await pods.runToEnd(pod, { command: ['true'], linux: { resources: limits } })).exit_code).toBe(0);
  // A time beyond what any clock holds is a long one, not none.
  const exec = await client.runtime('ExecSync', {
    container_id,
    cmd: ['true'],
    timeout: '9223372036854775807',
  });
  expect(exec.exit_code).toBe(0);
});

/** How a call was refused, or that it was not. */
function refused(call: Promise<unknown>): Promise<{ kind: string; message: string }> {
  return refusal(call).catch((e: unknown) => ({ kind: 'none', message: String(e) }));
}
