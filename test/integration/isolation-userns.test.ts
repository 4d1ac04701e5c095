import { execFile } from 'node:child_process';
import { readFileSync, readlinkSync } from 'node:fs';
import { chmod, chown, lstat, mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { ContainerConfig } from '../../proto/gen/runtime/v1/ContainerConfig.ts';
import type { LinuxContainerSecurityContext } from '../../proto/gen/runtime/v1/LinuxContainerSecurityContext.ts';
import type { NamespaceOption } from '../../proto/gen/runtime/v1/NamespaceOption.ts';
import { listMounts } from '../../src/sys/mount.ts';
import { namespaceInode } from '../../src/sys/namespaces.ts';
import { Berthd } from '../support/berthd.ts';
import { BUSYBOX } from '../support/busybox.ts';
import { newerRunc } from '../support/newer-runc.ts';
import { IDLE, type Pod, Pods, refusal, sh } from '../support/pods.ts';

const run = promisify(execFile);
const runc = await newerRunc();
/** As the kubelet maps: a whole range of 65536 ids for each pod. */
const UIDS = [{ host_id: 7 * 65_536, container_id: 0, length: 65_536 }];
const GIDS = [{ host_id: 9 * 65_536, container_id: 0, length: 65_536 }];
const [HOST_UID = 0, HOST_GID = 0] = [UIDS[0]?.host_id, GIDS[0]?.host_id];
const userns = (pid: 'CONTAINER' | 'POD' = 'CONTAINER'): NamespaceOption => ({
  pid,
  userns_options: { mode: 'POD', uids: UIDS, gids: GIDS },
});

let berthd: Berthd;
let pods: Pods;

beforeAll(async () => {
  const table = (name: string, program: string) => `[runtimes.${name}]\npath = "${program}"\n`;
  berthd = await Berthd.start({
    tables: table('runc', '/usr/sbin/runc') + (runc === undefined ? '' : table('newer', runc)),
  });
  // The pod's root must be able to search the way to its root directory, as in /run/berth.
  await chmod(berthd.dir, 0o711);
  await berthd.importBusybox();
  pods = new Pods(berthd);
});
afterEach(async () => expect(await berthd.removeAllPods()).toEqual([]));
afterAll(async () => expect(await berthd.close()).toEqual([]));

const newPod = (options = userns(), more: object = {}) =>
  pods.run(
    {
      linux: {
        cgroup_parent: berthd.cgroupParent,
        security_context: { namespace_options: options, ...more },
      },
    },
    'newer',
  );
const container = (config: ContainerConfig, more: LinuxContainerSecurityContext = {}): ContainerConfig => ({
  ...config,
  linux: { security_context: { namespace_options: userns(), ...more } },
});
const prints = async (pod: Pod, script: string, config: ContainerConfig = {}, more = {}) =>
  (await pods.runToEnd(pod, container(sh(`exec 2>&1; ${script}`, config), more))).log.trim();
const ns = (pid: number | 'self', kind: string) => readlinkSync(`/proc/${pid}/ns/${kind}`);
const ids = (pid: number, key: 'Uid' | 'Gid') =>
  Number(new RegExp(`^${key}:\\s+(\\d+)`, 'm').exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);

describe.runIf(runc)('a pod with a user namespace', () => {
  it('is told as possible for the handler that can', async () => {
    const { runtime_handlers } = await berthd.client.runtime('Status', {});
    const features = Object.fromEntries(runtime_handlers.map(({ name, features }) => [name, features]));
    expect(features.newer).toMatchObject({ user_namespaces: true, recursive_read_only_mounts: true });
  });

  it('has root inside that is nobody outside, in namespaces that it owns', async () => {
    const pod = await newPod();
    const id = await pods.start(pod, container(IDLE));
    const pid = await pods.pid('container', id);
    const { namespaces } = await pods.info('pod', pod.id);
    expect([ids(pid, 'Uid'), ids(pid, 'Gid')]).toEqual([HOST_UID, HOST_GID]);
    for (const kind of ['user', 'net', 'uts', 'ipc']) {
      const pinned = namespaceInode(path.join(String(namespaces), kind));
      expect(ns(pid, kind), kind).toBe(`${kind}:[${pinned}]`);
      expect(ns(pid, kind), kind).not.toBe(ns('self', kind));
    }
    expect(await pods.ask(id, 'id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map | tr -s " "')).toBe(
      `0\n0\n 0 ${HOST_UID} 65536\n 0 ${HOST_GID} 65536`,
    );
    expect(await pods.ask(id, 'hostname')).toBe(pod.config.hostname);
    const { uid_map } = { uid_map: readFileSync(`/proc/${pid}/uid_map`, 'utf8').trim().split(/\s+/) };
    expect(uid_map).toEqual(['0', String(HOST_UID), '65536']);
    const { network, linux } = await pods.podStatus(pod);
    expect(await pods.ask(id, 'ip -o addr')).toContain(network?.ip);
    expect(linux?.namespaces?.options?.userns_options).toEqual({ mode: 'POD', uids: UIDS, gids: GIDS });
  });

  it('may administer its own network, not the node’s, with the capability for it', async () => {
    const pod = await newPod();
    const caps = { capabilities: { add_capabilities: ['NET_ADMIN'] } };
    const script = 'ip link set lo mtu 1400 && ip -o link show lo';
    expect(await prints(pod, script, {}, caps)).toMatch(/mtu 1400/);
    expect(await prints(pod, 'ip link set lo mtu 1500', {})).toMatch(/not permitted/);
  });

  it('sees the image’s owners unchanged, writes as itself, and changes nothing in the image', async () => {
    const pod = await newPod();
    const script =
      'stat -c %u:%g / /bin/busybox /etc/passwd; touch /new; chown 1000:1001 /new; echo x >> /etc/passwd; stat -c %u:%g /new /etc/passwd; exec sleep 1000';
    const id = await pods.start(pod, container(sh(script)));
    const { log_path } = await pods.status(id);
    await expect
      .poll(async () => (await pods.log(log_path)).map(({ text }) => text), { timeout: 20_000 })
      .toEqual(['0:0', '0:0', '0:0', '1000:1001', '0:0']);
    // On disk: the writable layer has the node's ids, the image's layers what they always had.
    const upper = path.join(berthd.dir, 'root/containers', id, 'upper');
    expect(await owner(path.join(upper, 'new'))).toEqual([HOST_UID + 1000, HOST_GID + 1001]);
    expect(await owner(path.join(upper, 'etc/passwd'))).toEqual([HOST_UID, HOST_GID]);
    const layers = await busyboxes(path.join(berthd.dir, 'root/images'));
    expect(layers).toHaveLength(1);
    for (const file of layers) expect(await owner(file)).toEqual([0, 0]);
    const mounted = listMounts(berthd.dir).map(({ mountpoint }) => mountpoint);
    expect(mounted.filter((mountpoint) => mountpoint.endsWith('/mapped-images'))).toEqual([]);
  });

  it('volumes have their owners mapped where the kubelet says so, also below and read-only', async () => {
    const pod = await newPod();
    const dir = path.join(berthd.dir, 'volume');
    await mkdir(path.join(dir, 'of-app'), { recursive: true });
    await writeFile(path.join(dir, 'of-root'), 'x', { mode: 0o600 });
    await chown(path.join(dir, 'of-app'), 1000, 1001);
    const mapped = { uidMappings: UIDS, gidMappings: GIDS };
    const mounts = [
      { host_path: dir, container_path: '/mapped', ...mapped },
      { host_path: dir, container_path: '/plain' },
      { host_path: dir, container_path: '/ro', readonly: true, ...mapped },
    ];
    const script =
      'stat -c %u:%g /mapped/of-root /mapped/of-app /plain/of-root /ro/of-app; cat /mapped/of-root; echo; cat /plain/of-root; touch /mapped/made /ro/made';
    expect(await prints(pod, script, { mounts })).toBe(
      [
        '0:0\n1000:1001\n65534:65534\n1000:1001\nx',
        "cat: can't open '/plain/of-root': Permission denied",
        'touch: /ro/made: Read-only file system',
      ].join('\n'),
    );
    expect(await owner(path.join(dir, 'made'))).toEqual([0, 0]);
    const id = await pods.create(pod, container({ ...IDLE, mounts }));
    expect((await pods.status(id)).mounts[0]).toMatchObject({ uidMappings: UIDS, gidMappings: GIDS });
  });

  it('an image as a volume shows the image’s owners', async () => {
    const pod = await newPod();
    const mounts = [
      {
        container_path: '/image',
        readonly: true,
        image: { image: BUSYBOX },
        uidMappings: UIDS,
        gidMappings: GIDS,
      },
    ];
    expect(await prints(pod, 'stat -c %u:%g /image/etc/passwd; touch /image/x', { mounts })).toBe(
      '0:0\ntouch: /image/x: Read-only file system',
    );
  });

  it('its files and /dev/shm are its root’s, sysctls are set, and commands run in it', async () => {
    const pod = await pods.run(
      {
        linux: {
          cgroup_parent: berthd.cgroupParent,
          sysctls: {
            'net.ipv4.ip_unprivileged_port_start': '80',
            'kernel.shm_rmid_forced': '1',
            'fs.mqueue.msg_max': '17',
          },
          security_context: { namespace_options: userns() },
        },
      },
      'newer',
    );
    const id = await pods.start(pod, container({ ...IDLE, tty: true }));
    expect(
      await pods.ask(
        id,
        'stat -c %u:%g /etc/hosts /etc/hostname /etc/resolv.conf /dev/shm; echo 192.0.2.1 x >> /etc/hosts; touch /dev/shm/x; cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced /proc/sys/fs/mqueue/msg_max; ls /sys/class/net /dev/null /dev/pts/ptmx',
      ),
    ).toMatch(/^(0:0\n){4}80\n1\n17\n/);
    const other = await pods.start(pod, container(IDLE));
    expect(await pods.ask(other, 'grep 192.0.2.1 /etc/hosts; ls /dev/shm')).toBe('192.0.2.1 x\nx');
  });

  it('a shared PID namespace, another user, groups and a filter work as in any pod', async () => {
    const pod = await newPod(userns('POD'));
    const pause = await pods.pid('pod', pod.id);
    expect([ids(pause, 'Uid'), ids(pause, 'Gid')]).toEqual([HOST_UID + 65_535, HOST_GID + 65_535]);
    const security_context: LinuxContainerSecurityContext = {
      namespace_options: userns('POD'),
      run_as_user: { value: 1000 },
      supplemental_groups: [44],
      seccomp: { profile_type: 'RuntimeDefault' },
      no_new_privs: true,
      masked_paths: ['/proc/kcore', '/proc/acpi'],
      readonly_paths: ['/proc/sys'],
      readonly_rootfs: true,
    };
    const id = await pods.start(pod, { ...IDLE, linux: { security_context } });
    expect(await pods.ask(id, 'tr "\\0" " " </proc/1/cmdline; id -u; id -G')).toBe(
      '/pause -P 1000\n1001 44 2000',
    );
    const pid = await pods.pid('container', id);
    expect([ids(pid, 'Uid'), ids(pid, 'Gid')]).toEqual([HOST_UID + 1000, HOST_GID + 1001]);
  });

  it('goes on after a restart of berthd, and a container more can be made', async () => {
    const pod = await newPod();
    const id = await pods.start(pod, container(IDLE));
    await berthd.stop('SIGKILL');
    await berthd.start();
    expect(await pods.ask(id, 'id -u')).toBe('0');
    expect(await prints(pod, 'stat -c %u /bin/busybox')).toBe('0');
  });

  it('keeps a privileged container from the node, and tells its stats like any other', async () => {
    const pod = await newPod(userns(), { privileged: true });
    const id = await pods.start(pod, container(IDLE, { privileged: true }));
    expect(await pods.ask(id, 'mount -t tmpfs t /tmp && hostname other && echo did; id -u')).toBe('did\n0');
    for (const script of [
      'echo 1 > /proc/sys/kernel/printk',
      'mknod /tmp/sda b 8 0',
      'echo h > /proc/sysrq-trigger',
    ])
      expect((await pods.exec(id, ['sh', '-c', script])).code, script).not.toBe(0);
    const { stats } = await berthd.client.runtime('ContainerStats', { container_id: id });
    expect(Number(stats?.memory?.usage_bytes?.value)).toBeGreaterThan(0);
  });

  it('is what a pod without one is not, with the same runtime', async () => {
    const pod = await pods.run({}, 'newer');
    const id = await pods.start(pod);
    expect(ns(await pods.pid('container', id), 'user')).toBe(ns('self', 'user'));
    expect(await pods.ask(id, 'cat /proc/self/uid_map | tr -s " "')).toBe(' 0 0 4294967295');
  });
});

describe('refused, with the reason', () => {
  const options = (more: NamespaceOption): Promise<{ kind: string; message: string }> =>
    refusal(newPodOn('', { ...userns(), ...more }));
  const newPodOn = (handler: string, namespace_options: NamespaceOption) =>
    pods.run(
      { linux: { cgroup_parent: berthd.cgroupParent, security_context: { namespace_options } } },
      handler,
    );
  const FIELD = 'config.linux.security_context.namespace_options.userns_options';

  it('is a handler that cannot map owners of mounts, which Status does not promise either', async () => {
    const { stdout } = await run('/usr/sbin/runc', ['features']);
    const able = /"idmap":\s*{\s*"enabled":\s*true/.test(stdout);
    const { runtime_handlers, info } = await berthd.client.runtime('Status', { verbose: true });
    const features = runtime_handlers.find(({ name }) => name === 'runc')?.features;
    expect(features?.user_namespaces).toBe(able);
    if (able) return;
    const said = await options({});
    expect(said.kind).toBe('unimplemented');
    expect(said.message).toBe(
      `${FIELD}: no user namespaces with this runtime handler: /usr/sbin/runc cannot map the owners of mounts (runc can from version 1.2 on)`,
    );
    expect(info.missingFeatures).toContain('cannot map the owners of mounts');
  });

  const map = (host_id: number, container_id: number, length: number) => ({ host_id, container_id, length });
  it.each<[string, NamespaceOption, string]>([
    [
      'no groups',
      { userns_options: { mode: 'POD', uids: UIDS, gids: [] } },
      '.gids: must have one mapping; has 0',
    ],
    [
      'no root',
      { userns_options: { mode: 'POD', uids: [map(9, 1, 5)], gids: GIDS } },
      '.uids[0].container_id: must be 0',
    ],
    [
      'an empty range',
      { userns_options: { mode: 'POD', uids: [map(9, 0, 0)], gids: GIDS } },
      '.uids[0].length',
    ],
    [
      'ids that do not exist',
      { userns_options: { mode: 'POD', uids: UIDS, gids: [map(0xffff_ff00, 0, 65_536)] } },
      '.gids[0].length',
    ],
    [
      'two ranges',
      { userns_options: { mode: 'POD', uids: [map(100, 0, 10), map(105, 10, 10)], gids: GIDS } },
      '.uids: must have one mapping; has 2',
    ],
    [
      'mappings for the node’s',
      { userns_options: { mode: 'NODE', uids: UIDS, gids: GIDS } },
      ' has mappings',
    ],
    [
      'the node’s network',
      { network: 'NODE' },
      "excludes the node's namespaces, which the pod asks for: network",
    ],
    ['the node’s processes', { pid: 'NODE', ipc: 'NODE' }, 'asks for: ipc, pid'],
  ])('are %s', async (_name, more, message) => {
    const said = await options(more);
    expect(said.kind).toBe('invalid');
    expect(said.message).toContain(FIELD);
    expect(said.message).toContain(message);
  });

  it.runIf(runc)('are containers that differ from their pod, and users that are not mapped', async () => {
    const create = (pod: Pod, more: LinuxContainerSecurityContext, config: ContainerConfig = {}) =>
      refusal(pods.create(pod, { ...container({ ...IDLE, ...config }, more) }));
    const pod = await newPod();
    expect(await create(pod, { namespace_options: { pid: 'CONTAINER' } })).toMatchObject({ kind: 'invalid' });
    const other = { mode: 'POD' as const, uids: [map(1, 0, 65_536)], gids: GIDS };
    expect(
      await create(pod, { namespace_options: { pid: 'CONTAINER', userns_options: other } }),
    ).toMatchObject({
      kind: 'invalid',
      message: expect.stringContaining("userns_options: must be the sandbox's"),
    });
    expect(await create(pod, { run_as_user: { value: 70_000 } })).toMatchObject({
      kind: 'invalid',
      message: expect.stringContaining('do not map the user 70000'),
    });
    const mounts = [{ host_path: '/tmp', container_path: '/m', uidMappings: UIDS, gidMappings: [] }];
    expect(await create(pod, {}, { mounts })).toMatchObject({
      kind: 'invalid',
      message: expect.stringContaining('config.mounts[0].gidMappings: must have one mapping'),
    });
    const plain = await pods.run();
    expect(
      await refusal(
        pods.create(plain, {
          ...IDLE,
          mounts: [{ host_path: '/tmp', container_path: '/m', uidMappings: UIDS, gidMappings: GIDS }],
        }),
      ),
    ).toMatchObject({
      kind: 'invalid',
      message: expect.stringContaining('needs a pod with a user namespace'),
    });
  });
});

async function owner(file: string): Promise<[number, number]> {
  const { uid, gid } = await lstat(file);
  return [uid, gid];
}

async function busyboxes(dir: string): Promise<string[]> {
  const all = await readdir(dir, { recursive: true });
  const found = all.filter((name) => name.endsWith('/bin/busybox')).map((name) => path.join(dir, name));
  for (const file of found) await Promise.all([stat(file), readFile(file)]);
  return found;
}
