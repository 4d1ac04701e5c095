import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { applyCdiEdits } from '../../../src/cdi/apply.ts';
import { parseCdiName, requestedCdiDevices } from '../../../src/cdi/name.ts';
import { type CdiFiles, parseCdiFile, readCdiFiles } from '../../../src/cdi/read.ts';
import { resolveCdiDevices } from '../../../src/cdi/resolve.ts';
import type { CdiEdits } from '../../../src/cdi/schema.ts';
import { buildContainerSpec } from '../../../src/spec/container.ts';
import { containerConfig, containerInput, mount } from '../spec/configs.ts';

describe('names', () => {
  test.each(['vendor.com/class=d', 'v/c=0', 'a.b-c_d/x.y-z_1=gpu0:1.2-3_4', 'nvidia.com/gpu=all'])(
    '%s',
    (name) => {
      const [kind, device] = name.split('=');
      expect(parseCdiName(name, 'f')).toEqual({ kind, device });
    },
  );

  test.each([
    '',
    'x',
    'vendor/class',
    'vendor=device',
    '/c=d',
    'v/=d',
    'v/c=',
    '1v/c=d',
    'v/c=d/e',
    'v/c=-d',
    'v/c=d ',
    'v/c=d=',
  ])('%j is refused', (name) => {
    expect(() => parseCdiName(name, 'config.CDI_devices[0].name')).toThrow(
      /^config\.CDI_devices\[0\]\.name: must be like vendor\.com\/class=device/,
    );
  });

  test('come from the field and from annotations, each once', () => {
    expect(
      requestedCdiDevices({
        cdiDevices: ['v/c=1', 'v/c=2'],
        annotations: { 'cdi.k8s.io/plugin_x': 'v/c=2, v/c=3', other: 'v/c=4' },
      }),
    ).toEqual([
      { name: 'v/c=1', field: 'config.CDI_devices[0].name' },
      { name: 'v/c=2', field: 'config.CDI_devices[1].name' },
      { name: 'v/c=3', field: 'config.annotations["cdi.k8s.io/plugin_x"]' },
    ]);
  });
});

const file = (more: object = {}) =>
  JSON.stringify({ cdiVersion: '0.8.0', kind: 'v/c', devices: [{ name: 'd', containerEdits: {} }], ...more });
const edited = (containerEdits: object) => file({ containerEdits });

describe('files', () => {
  test('in JSON and YAML, with everything that version 1.0 knows', async () => {
    const all: CdiEdits = {
      env: ['A=b'],
      deviceNodes: [
        {
          path: '/dev/a',
          hostPath: '/dev/b',
          type: 'c',
          major: 1,
          minor: 3,
          fileMode: 0o660,
          permissions: 'rw',
          uid: 1,
          gid: 2,
        },
      ],
      mounts: [{ hostPath: '/a', containerPath: '/b', options: ['ro', 'bind'], type: 'bind' }],
      hooks: [{ hookName: 'createContainer', path: '/bin/h', args: ['h', '1'], env: ['X=y'], timeout: 5 }],
      intelRdt: {
        closID: 'c',
        l3CacheSchema: 'L3:0=f',
        memBwSchema: 'MB:0=50',
        enableCMT: true,
        enableMBM: true,
      },
      additionalGids: [5],
    };
    const annotations = { some: 'text' };
    const whole = file({
      containerEdits: all,
      annotations,
      devices: [{ name: 'd', annotations, containerEdits: all }],
    });
    expect(await parseCdiFile(whole)).toEqual(JSON.parse(whole));
    const yaml =
      'cdiVersion: "1.0.0"\nkind: v.com/c\ndevices:\n- name: d\n  containerEdits:\n    env: [A=b]\n';
    expect((await parseCdiFile(yaml)).devices[0]?.containerEdits.env).toEqual(['A=b']);
  });

  test.each([
    ['{}', /cdiVersion/],
    ['[', /./],
    ['x', /expected object/],
    [file({ cdiVersion: '2.0.0' }), /^cdiVersion: must be a version up to 1\.x/],
    [file({ kind: 'v' }), /^kind: must be like/],
    [file({ devices: [] }), /^devices: /],
    [file({ unknown: 1 }), /unknown/],
    [file({ devices: [{ name: 'a/b', containerEdits: {} }] }), /^devices\.0\.name: /],
    [
      file({ devices: ['d', 'd'].map((name) => ({ name, containerEdits: {} })) }),
      /^devices: has a name twice/,
    ],
    [edited({ netDevices: [] }), /netDevices/],
    [edited({ env: ['A'] }), /^containerEdits\.env\.0: must be like NAME=value/],
    [edited({ deviceNodes: [{ path: 'dev/x' }] }), /deviceNodes\.0\.path: must be an absolute path/],
    [edited({ deviceNodes: [{ path: '/x', permissions: 'x' }] }), /permissions: must be letters/],
    [edited({ hooks: [{ hookName: 'later', path: '/h' }] }), /hooks\.0\.hookName/],
    [edited({ intelRdt: { closID: '../x' } }), /closID/],
  ])('%s is refused', async (text, message) => {
    await expect(parseCdiFile(text)).rejects.toThrow(message);
  });
});

describe('directories', () => {
  let dir: string;
  beforeAll(async () => {
    dir = await mkdtemp(path.join(tmpdir(), 'cdi-'));
    for (const name of ['etc', 'run', 'run/below']) await mkdir(path.join(dir, name));
    await writeFile(path.join(dir, 'etc/a.json'), file());
    await writeFile(path.join(dir, 'etc/ignored.txt'), 'x');
    await writeFile(path.join(dir, 'run/b.yaml'), file({ containerEdits: { env: ['FROM=run'] } }));
    await writeFile(path.join(dir, 'run/bad.json'), '{"cdiVersion":"0.8.0"}');
    await writeFile(path.join(dir, 'run/below/c.json'), file());
    await symlink('/dev/zero', path.join(dir, 'run/device.json'));
  });
  afterAll(() => rm(dir, { recursive: true }));

  test('each file by itself, the later directory first; a bad one is told', async () => {
    const dirs = ['etc', 'absent', 'run'].map((name) => path.join(dir, name));
    const { files, problems } = await readCdiFiles(dirs);
    expect(files.map(({ path: name, rank }) => [path.relative(dir, name), rank])).toEqual([
      ['etc/a.json', 0],
      ['run/b.yaml', 2],
    ]);
    expect(problems).toEqual([
      expect.stringMatching(/run\/bad\.json: kind: /),
      expect.stringMatching(/run\/device\.json: not a regular file/),
    ]);
    const edits = resolveCdiDevices([{ name: 'v/c=d', field: 'f' }], { files, problems });
    expect(edits).toEqual([{ env: ['FROM=run'] }, {}]);
    expect(() => resolveCdiDevices([{ name: 'v/c=x', field: 'f' }], { files, problems })).toThrow(
      /^f: no CDI device v\/c=x \(unusable: .*bad\.json/,
    );
  });
});

test('a device in two files of one directory is nobody’s, in two directories the later one’s', async () => {
  const spec = (env: string) =>
    parseCdiFile(
      file({
        devices: [{ name: 'd', containerEdits: { env: [`E=${env}`] } }],
        containerEdits: { env: ['G=1'] },
      }),
    );
  const files: CdiFiles = {
    files: [
      { path: '/1/a', rank: 0, spec: await spec('a') },
      { path: '/1/b', rank: 0, spec: await spec('b') },
    ],
    problems: [],
  };
  const asked = [{ name: 'v/c=d', field: 'f' }];
  expect(() => resolveCdiDevices(asked, files)).toThrow(
    'f: the CDI device v/c=d is in conflict: it is in /1/a and /1/b',
  );
  files.files.push({ path: '/2/c', rank: 1, spec: await spec('c') });
  expect(resolveCdiDevices(asked, files)).toEqual([{ env: ['G=1'] }, { env: ['E=c'] }]);
  expect(resolveCdiDevices([...asked, ...asked], files)).toHaveLength(3);
});

describe('edits', () => {
  const apply = async (edits: CdiEdits[], { privileged = false } = {}) => {
    const config = containerConfig(
      {
        envs: [{ key: 'A', value: 'request' }],
        mounts: [mount({ containerPath: '/a/b/c' }), mount({ containerPath: '/x' })],
      },
      { privileged, runAsUser: 7n, runAsGroup: 8n, supplementalGroups: [9n] },
    );
    return applyCdiEdits(await buildContainerSpec(containerInput({ config })), edits, privileged);
  };

  test('variables, groups, hooks and cache shares are added, or replaced', async () => {
    const intelRdt = { closID: 'x' };
    const spec = await apply([
      { env: ['A=cdi', 'B=1'], additionalGids: [0, 9, 10], hooks: [{ hookName: 'prestart', path: '/1' }] },
      { env: ['B=2'], hooks: [{ hookName: 'prestart', path: '/2', args: ['2'], timeout: 3 }], intelRdt },
    ]);
    expect(spec.process.env.slice(-2)).toEqual(['A=cdi', 'B=2']);
    expect(spec.process.user.additionalGids).toEqual([8, 9, 10]);
    expect(spec.hooks).toEqual({ prestart: [{ path: '/1' }, { path: '/2', args: ['2'], timeout: 3 }] });
    expect(spec.linux.intelRdt).toEqual(intelRdt);
  });

  test('mounts come before those that lie below them, and replace those at the same place', async () => {
    const { mounts } = await apply([
      {
        mounts: [
          { hostPath: '/h', containerPath: '/a/b', options: ['ro', 'bind'] },
          { hostPath: '/i', containerPath: '/x' },
          { hostPath: 'tmpfs', containerPath: '/t', type: 'tmpfs', options: ['size=1k'] },
        ],
      },
    ]);
    const own = mounts.filter(({ destination }) => /^\/[atx]/.test(destination));
    expect(own).toEqual([
      { destination: '/x', type: 'bind', source: '/i', options: ['rbind'] },
      { destination: '/t', type: 'tmpfs', source: 'tmpfs', options: ['size=1k'] },
      { destination: '/a/b', type: 'bind', source: '/h', options: ['ro', 'bind'] },
      expect.objectContaining({ destination: '/a/b/c', source: '/srv/data' }),
    ]);
  });

  test('devices are the host’s where the edits say no more, belong to the process, and are allowed', async () => {
    const nodes: CdiEdits = {
      deviceNodes: [
        { path: '/dev/null' },
        { path: '/dev/zero-too', hostPath: '/dev/zero', permissions: 'r', fileMode: 0o600, uid: 0, gid: 0 },
        { path: '/dev/absent', type: 'b', major: 240, minor: 1 },
        { path: '/dev/unbuffered', type: 'u', major: 241, minor: 2 },
        { path: '/dev/pipe', type: 'p' },
      ],
    };
    const { linux } = await apply([nodes]);
    expect(linux.devices).toEqual([
      expect.objectContaining({ path: '/dev/null', type: 'c', major: 1, minor: 3, uid: 7, gid: 8 }),
      { path: '/dev/zero-too', type: 'c', major: 1, minor: 5, fileMode: 0o600, uid: 0, gid: 0 },
      { path: '/dev/absent', type: 'b', major: 240, minor: 1, fileMode: 0o666, uid: 7, gid: 8 },
      { path: '/dev/unbuffered', type: 'c', major: 241, minor: 2, fileMode: 0o666, uid: 7, gid: 8 },
      { path: '/dev/pipe', type: 'p', major: 0, minor: 0, fileMode: 0o666, uid: 7, gid: 8 },
    ]);
    expect(linux.resources.devices).toEqual([
      { allow: false, access: 'rwm' },
      { allow: true, type: 'c', major: 1, minor: 3, access: 'rwm' },
      { allow: true, type: 'c', major: 1, minor: 5, access: 'r' },
      { allow: true, type: 'b', major: 240, minor: 1, access: 'rwm' },
      { allow: true, type: 'c', major: 241, minor: 2, access: 'rwm' },
    ]);
    const privileged = await apply([nodes], { privileged: true });
    expect(privileged.linux.resources.devices).toEqual([{ allow: true, access: 'rwm' }]);
  });

  test.each([
    [{ path: '/dev/none-such' }, /no such file/],
    [{ path: '/etc/passwd' }, /\/etc\/passwd is no device file/],
    [{ path: '/dev/null', type: 'b' as const }, /\/dev\/null is no device file of type "b"/],
  ])('%j is refused', async (node, message) => {
    await expect(apply([{ deviceNodes: [node] }])).rejects.toThrow(message);
  });
});
