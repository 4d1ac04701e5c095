import { describe, expect, it } from 'vitest';
import { guestResources, hostVolumes, planGuestSpec, refuse } from '../../../../src/vm/shim/guest-spec.ts';
import { OciSpec } from '../../../../src/vm/shim/oci.ts';
import { roleOf } from '../../../../src/vm/shim/role.ts';

const NAMESPACES = [
  { type: 'mount' },
  { type: 'network', path: '/run/ns/net' },
  { type: 'uts', path: '/run/ns/uts' },
  { type: 'ipc', path: '/run/ns/ipc' },
  { type: 'pid' },
];

function spec(more: object = {}, linux: object = {}): OciSpec {
  return new OciSpec({
    ociVersion: '1.0.2',
    process: { args: ['sh'], apparmorProfile: 'p', selinuxLabel: 'l', oomScoreAdj: 5 },
    root: { path: '/run/b/rootfs', readonly: true },
    hostname: 'pod',
    mounts: [],
    linux: { namespaces: NAMESPACES, cgroupsPath: '/kubepods/x', ...linux },
    ...more,
  });
}

const plan = (more: object = {}, linux: object = {}) => {
  const host = spec(more, linux);
  const volumes = hostVolumes(host);
  const places = volumes.map(({ source, readonly }) => ({
    path: `/run/berth/shared${source}`,
    readonly: readonly !== false && !source.includes('with mounts'),
  }));
  const guest = planGuestSpec(host, 'id', places) as Record<string, Record<string, unknown>>;
  return { guest, volumes };
};

describe("a container's spec for the guest", () => {
  it('has the paths of the guest, and nothing that only the host knows', () => {
    const { guest } = plan();
    expect(guest.root).toEqual({ path: '/run/berth/shared/id/rootfs', readonly: true });
    expect(guest.process).toEqual({ args: ['sh'], oomScoreAdj: 5 });
    expect(guest).not.toHaveProperty('hostname');
    expect(guest.linux).not.toHaveProperty('cgroupsPath');
    expect(guest.linux?.namespaces).toEqual([{ type: 'mount' }, { type: 'pid' }, { type: 'cgroup' }]);
  });

  it.each([
    ['/proc/7/ns/pid', 'sandbox'],
    ['container:abc', 'container:abc'],
  ])('joins the PID namespace %s as %s', (path, expected) => {
    const namespaces = NAMESPACES.map((n) => (n.type === 'pid' ? { ...n, path } : n));
    expect(plan({}, { namespaces }).guest.linux?.namespaces).toContainEqual({ type: 'pid', path: expected });
  });

  it('takes volumes from the share, and the rest of its mounts as they are', () => {
    const proc = { destination: '/proc', type: 'proc', source: 'proc', options: ['nosuid'] };
    const { guest, volumes } = plan({
      mounts: [
        proc,
        {
          destination: '/dev/shm',
          type: 'bind',
          source: '/run/shm',
          options: ['rbind', 'rprivate', 'noexec'],
        },
        { destination: '/c', type: 'bind', source: '/vol/c', options: ['rbind', 'rprivate', 'ro'] },
        { destination: '/d', type: '', source: '/vol/d', options: ['rbind', 'rslave', 'rw', 'nosuid'] },
        { destination: '/e', type: 'bind', source: '/with mounts', options: ['rbind', 'rprivate', 'ro'] },
        { destination: '/f', type: 'bind', source: '/vol/f', options: ['rbind', 'rprivate', 'rro'] },
        // What the pod itself mounts there.
        { destination: '/dev/shm', type: 'bind', source: '/vol/shm', options: ['rbind', 'rprivate', 'rw'] },
      ],
    });
    const bound = ['rbind', 'rprivate'];
    const at = (source: string) => ({ type: 'bind', source: `/run/berth/shared${source}` });
    expect(guest.mounts).toEqual([
      proc,
      { destination: '/dev/shm', type: 'bind', source: '/dev/shm', options: [...bound, 'noexec'] },
      { destination: '/c', ...at('/vol/c'), options: [...bound, 'ro'] },
      { destination: '/d', ...at('/vol/d'), options: [...bound, 'rw', 'nosuid'] },
      // The host keeps the top of it from being written; what is mounted below it may be.
      { destination: '/e', ...at('/with mounts'), options: bound },
      { destination: '/f', ...at('/vol/f'), options: [...bound, 'ro'] },
      { destination: '/dev/shm', ...at('/vol/shm'), options: [...bound, 'rw'] },
    ]);
    expect(volumes).toEqual([
      { source: '/vol/c', destination: '/c', readonly: true, follows: false },
      { source: '/vol/d', destination: '/d', readonly: false, follows: true },
      { source: '/with mounts', destination: '/e', readonly: true, follows: false },
      { source: '/vol/f', destination: '/f', readonly: 'recursive', follows: false },
      { source: '/vol/shm', destination: '/dev/shm', readonly: false, follows: false },
    ]);
  });

  it('keeps limits, but for those that name CPUs, huge pages and disks of the host', () => {
    const devices = [{ allow: false, access: 'rwm' }];
    expect(
      guestResources({
        devices,
        memory: { limit: 2n ** 60n },
        cpu: { shares: 2, quota: 5, cpus: '0-3', mems: '0' },
        hugepageLimits: [{ pageSize: '2MB', limit: 0 }],
        blockIO: { weight: 10 },
        unified: { 'memory.high': '1', 'memory.swap.max': '0', 'io.weight': '5', 'cpuset.cpus': '0' },
      }),
    ).toEqual({
      ...{ devices, memory: { limit: 2n ** 60n }, cpu: { shares: 2, quota: 5 } },
      unified: { 'memory.high': '1' },
    });
  });
});

describe('what cannot work in a virtual machine is refused by name', () => {
  const without = (type: string) => ({ namespaces: NAMESPACES.filter((n) => n.type !== type) });
  const bind = (options: string[], more: object = {}) => ({
    mounts: [{ destination: '/m', type: 'bind', source: '/s', options, ...more }],
  });
  it.each([
    ["the node's network", {}, without('network'), "the node's network namespace"],
    ["the node's processes", {}, without('pid'), "the node's PID namespace"],
    ["the node's IPC", {}, without('ipc'), "the node's IPC namespace"],
    [
      'user namespaces',
      {},
      { namespaces: [...NAMESPACES, { type: 'user', path: '/u' }] },
      'a user namespace',
    ],
    ['devices', {}, { devices: [{ path: '/dev/sda' }] }, 'linux.devices: /dev/sda'],
    [
      'huge pages',
      {},
      {
        resources: {
          hugepageLimits: [
            { pageSize: '1GB', limit: 0n },
            { pageSize: '2MB', limit: 4n },
          ],
        },
      },
      'linux.resources.hugepageLimits: 2MB',
    ],
    ['hooks', { hooks: { prestart: [{ path: '/h' }] } }, {}, 'hooks is not possible'],
    ['mounts that go out', bind(['rbind', 'rshared']), {}, 'mounts: /m with bidirectional'],
    ['mapped mounts', bind(['rbind'], { uidMappings: [] }), {}, 'mounts: /m with mapped owners'],
  ])('%s', (_what, more, linux, message) => {
    expect(() => plan(more, linux)).toThrow(message);
  });

  it('of a sandbox, too', () => {
    expect(() => refuse(spec())).not.toThrow();
    expect(() => refuse(spec({}, without('network')))).toThrow(/network namespace/);
  });

  it.each([
    [{ mounts: 'x' }, 'mounts: must be a list'],
    [{ mounts: [7] }, 'mounts[0]: must be an object'],
    [{ mounts: [{ destination: 3 }] }, 'mounts[0].destination: must be text'],
    [{ linux: [] }, 'linux: must be an object'],
  ])('nonsense as well: %j', (more, message) => {
    expect(() => plan(more)).toThrow(message);
  });
});

describe('what a task is', () => {
  it.each([
    [{}, { kind: 'single' }],
    [{ 'io.kubernetes.cri.container-type': 'sandbox' }, { kind: 'sandbox' }],
    [
      { 'io.kubernetes.cri.container-type': 'container', 'io.kubernetes.cri.sandbox-id': 's' },
      { kind: 'container', sandboxId: 's' },
    ],
    [
      { 'io.kubernetes.cri-o.ContainerType': 'container', 'io.kubernetes.cri-o.SandboxID': 's' },
      { kind: 'container', sandboxId: 's' },
    ],
    [{ 'io.kubernetes.cri.container-type': 'container' }, { kind: 'single' }],
  ])('%j: %j', (annotations, role) => {
    expect(roleOf(annotations)).toEqual(role);
  });
});
