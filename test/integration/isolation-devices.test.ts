import { existsSync, readFileSync } from 'node:fs';
import { chmod, mkdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { ContainerConfig } from '../../proto/gen/runtime/v1/ContainerConfig.ts';
import type { LinuxContainerSecurityContext } from '../../proto/gen/runtime/v1/LinuxContainerSecurityContext.ts';
import { Berthd } from '../support/berthd.ts';
import { start as startCli } from '../support/cli.ts';
import { IDLE, OWN_PID, type Pod, Pods, refusal, SHARED_PID, sh } from '../support/pods.ts';

let berthd: Berthd;
let pods: Pods;
let dirs: [string, string];

beforeAll(async () => {
  const prepared = await Berthd.prepare({
    keys: 'cdi_spec_dirs = ["/tmp/none/etc", "/tmp/none/run"]',
    tables:
      '[runtimes.runc]\npath = "/usr/sbin/runc"\nallowed_annotations = ["allowed.example/*", "exact"]\n',
  });
  // The test's own directories: those of the node belong to its device plugins.
  dirs = ['etc', 'run'].map((name) => path.join(prepared.dir, 'cdi', name)) as [string, string];
  const config = await readFile(prepared.configFile, 'utf8');
  await writeFile(
    prepared.configFile,
    config.replace('["/tmp/none/etc", "/tmp/none/run"]', JSON.stringify(dirs)),
  );
  berthd = prepared;
  await berthd.start();
  await berthd.importBusybox();
  pods = new Pods(berthd);
});
afterEach(async () => {
  expect(await berthd.removeAllPods()).toEqual([]);
  await rm(path.join(berthd.dir, 'cdi'), { recursive: true, force: true });
});
afterAll(async () => expect(await berthd.close()).toEqual([]));

const secure = (more: LinuxContainerSecurityContext) => ({
  linux: { security_context: { ...OWN_PID, ...more } },
});
const prints = async (pod: Pod, script: string, more: ContainerConfig = {}) =>
  (await pods.runToEnd(pod, sh(`exec 2>&1; ${script}`, more))).log.trim();
/** Puts a file as device plugins do: written elsewhere, then renamed. */
async function put(dir: string, name: string, spec: object): Promise<void> {
  await mkdir(dir, { recursive: true });
  await writeFile(
    path.join(dir, `.${name}.tmp`),
    JSON.stringify({ cdiVersion: '0.8.0', kind: 'berth.example/thing', ...spec }),
  );
  await rename(path.join(dir, `.${name}.tmp`), path.join(dir, name));
}
const device = (name: string, containerEdits: object) => ({ name, containerEdits });
const cdi = (...names: string[]) => ({
  CDI_devices: names.map((name) => ({ name: `berth.example/thing=${name}` })),
});

describe('a CDI device', () => {
  it('brings variables, device files with their rights, mounts, groups and hooks', async () => {
    const pod = await pods.run();
    const library = path.join(berthd.dir, 'library');
    await mkdir(library, { recursive: true });
    await writeFile(path.join(library, 'lib.so'), 'code');
    const hook = path.join(berthd.dir, 'hook.sh');
    const told = path.join(berthd.dir, 'hook.out');
    await writeFile(hook, `#!/bin/sh\necho "$@" "$SAYS" > ${told}; cat >> ${told}\n`);
    await chmod(hook, 0o755);
    await put(dirs[0], 'thing.json', {
      containerEdits: {
        env: ['DRIVER=1.2'],
        mounts: [{ hostPath: library, containerPath: '/lib/thing', options: ['ro', 'nosuid', 'bind'] }],
      },
      devices: [
        device('one', {
          env: ['ONE=yes'],
          deviceNodes: [{ path: '/dev/thing0', hostPath: '/dev/loop-control', permissions: 'r' }],
          additionalGids: [4321],
          hooks: [{ hookName: 'createRuntime', path: hook, args: ['hook', 'arg'], env: ['SAYS=hello'] }],
        }),
        device('two', { deviceNodes: [{ path: '/dev/full-too', hostPath: '/dev/full' }] }),
      ],
    });
    const script =
      'echo $DRIVER $ONE; stat -c "%u:%g %t,%T" /dev/thing0; head -c 0 /dev/thing0 && echo read; true > /dev/thing0 && echo written; cat /lib/thing/lib.so; echo; touch /lib/thing/x; id -G; ls /dev/full-too';
    const said = await prints(pod, script, { ...cdi('one'), ...secure({ run_as_user: { value: 1000 } }) });
    expect(said.split('\n')).toEqual([
      '1.2 yes',
      '1000:1001 a,ed',
      'read',
      expect.stringMatching(/thing0: (Operation not permitted|Permission denied)/),
      'code',
      'touch: /lib/thing/x: Read-only file system',
      '1001 2000 4321',
      'ls: /dev/full-too: No such file or directory',
    ]);
    expect(readFileSync(told, 'utf8')).toMatch(/^arg hello\n{.*"pid":\s*\d+/s);
    expect(await prints(pod, 'ls /dev/thing0 /dev/full-too', cdi('one', 'two'))).toBe(
      '/dev/full-too\n/dev/thing0',
    );
    // As device plugins asked before there was a field for it, and in commands that are run later.
    const annotated = { annotations: { 'cdi.k8s.io/plugin': 'berth.example/thing=two' } };
    const id = await pods.start(pod, { ...IDLE, ...annotated });
    expect(await pods.ask(id, 'echo $DRIVER; ls /dev/full-too')).toBe('1.2\n/dev/full-too');
  });

  it('is what its file says now, without a restart; the later directory wins', async () => {
    const pod = await pods.run();
    const says = (env: string) => ({ devices: [device('one', { env: [`SAYS=${env}`] })] });
    const create = () => pods.create(pod, { ...IDLE, ...cdi('one') });
    const absent = await refusal(create());
    expect(absent).toMatchObject({
      kind: 'invalid',
      message: 'config.CDI_devices[0].name: no CDI device berth.example/thing=one',
    });
    await put(dirs[0], 'a.json', says('first'));
    expect(await prints(pod, 'echo $SAYS', cdi('one'))).toBe('first');
    await put(dirs[1], 'z.json', says('second'));
    expect(await prints(pod, 'echo $SAYS', cdi('one'))).toBe('second');
    await put(dirs[1], 'a.json', says('third'));
    expect((await refusal(create())).message).toMatch(
      /is in conflict: it is in \S+\/run\/a\.json and \S+\/run\/z\.json$/,
    );
    await rm(path.join(dirs[1], 'z.json'));
    expect(await prints(pod, 'echo $SAYS', cdi('one'))).toBe('third');
    await writeFile(path.join(dirs[1], 'a.json'), '{"kind":');
    expect(await prints(pod, 'echo $SAYS', cdi('one'))).toBe('first');
    const broken = expect.stringContaining(`${path.join(dirs[1], 'a.json')}: `);
    const { info } = await berthd.client.runtime('Status', { verbose: true });
    expect(JSON.parse(info.cdi ?? '')).toEqual({
      files: [path.join(dirs[0], 'a.json')],
      problems: [broken],
    });
    expect((await startCli(berthd.endpoint, ['info'])).stdout).toMatch(/^CDI: +\S+run\/a\.json: /m);
    await rm(path.join(dirs[0], 'a.json'));
    expect((await refusal(create())).message).toMatch(/no CDI device \S+ \(unusable: \S+\/run\/a\.json: /);
  });

  it('that the host does not have is refused, and nothing stays', async () => {
    const pod = await pods.run();
    await put(dirs[0], 'a.json', {
      devices: [device('one', { deviceNodes: [{ path: '/dev/no-such-device' }] })],
    });
    const said = await refusal(pods.create(pod, { ...IDLE, ...cdi('one') }));
    expect(said).toMatchObject({ kind: 'invalid', message: expect.stringContaining('/dev/no-such-device') });
    expect((await berthd.client.runtime('ListContainers', {})).containers).toEqual([]);
  });
});

describe('devices of the node', () => {
  it('can be a whole folder of them, and links, with letters for what may be done', async () => {
    const pod = await pods.run();
    const folder = path.join(berthd.dir, 'dev');
    await mkdir(folder, { recursive: true });
    await symlink('/dev/full', path.join(folder, 'link'));
    const devices = [
      { host_path: path.join(folder, 'link'), container_path: '/dev/linked', permissions: 'rw' },
      { host_path: '/dev/net', container_path: '/dev/folder', permissions: 'rwm' },
    ];
    const script =
      'stat -c %t,%T /dev/linked; echo x > /dev/linked; mknod /tmp/copy c 1 7 && echo made; ls /dev/folder';
    const wanted = existsSync('/dev/net/tun') ? '\ntun' : '';
    expect(
      await prints(pod, script, { devices: existsSync('/dev/net') ? devices : devices.slice(0, 1) }),
    ).toMatch(new RegExp(`^1,7\\nsh: write error: No space left on device\\nmade${wanted}`));
  });

  it('are closed to a container that makes the node itself', async () => {
    const pod = await pods.run();
    // /dev/kmsg; the capability to make nodes is one of the usual ones.
    expect(await prints(pod, 'mknod /tmp/kmsg c 1 11 && head -c 1 /tmp/kmsg')).toMatch(/not permitted/);
  });
});

describe('annotations', () => {
  it('reach the OCI runtime where the handler’s configuration names them, and no others', async () => {
    const pod = await pods.run({
      annotations: {
        'allowed.example/pod': '1',
        'org.systemd.property.X': 'true',
        exact: 'pod',
        'allowed.example/a/b': '1',
      },
      linux: { security_context: SHARED_PID },
    });
    const id = await pods.create(pod, {
      ...IDLE,
      annotations: {
        exact: 'container',
        'allowed.example/own': '2',
        'run.oci.keep': '1',
        'io.kubernetes.cri.container-type': 'x',
      },
    });
    const spec = async (file: string) =>
      (
        JSON.parse(await readFile(path.join(berthd.dir, 'state', file, 'config.json'), 'utf8')) as {
          annotations: object;
        }
      ).annotations;
    const others = (annotations: object) =>
      Object.fromEntries(
        Object.entries(annotations).filter(([name]) => !/^io\.kubernetes\.cri\./.test(name)),
      );
    expect(others(await spec(`sandboxes/${pod.id}`))).toEqual({ 'allowed.example/pod': '1', exact: 'pod' });
    const own = await spec(`containers/${id}`);
    expect(others(own)).toEqual({
      'allowed.example/pod': '1',
      exact: 'container',
      'allowed.example/own': '2',
    });
    expect(own).toMatchObject({ 'io.kubernetes.cri.container-type': 'container' });
  });
});
