import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Berthd } from '../support/berthd.ts';
import { BUSYBOX, busyboxArchive } from '../support/busybox.ts';
import { BERTH, start } from '../support/cli.ts';

/** Two pods, the first of which uses most of what a Pod may say. */
const PODS = `
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, uid: 11111111-2222-3333-4444-555555555555, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 1
  securityContext: {supplementalGroups: [4242], sysctls: [{name: net.ipv4.ip_unprivileged_port_start, value: '0'}]}
  initContainers:
  - name: prepare
    image: ${BUSYBOX}
    command: [sh, -c, 'echo "hello from $(GREETING)" > /data/index.html']
    env: [{name: GREETING, value: berth}]
    volumeMounts: [{name: shared, mountPath: /data}]
  containers:
  - name: server
    image: ${BUSYBOX}
    workingDir: /data
    command: [httpd]
    args: [-f, -v, -p, '80', -h, .]
    ports: [{containerPort: 80, hostPort: 0}]
    volumeMounts: [{name: shared, mountPath: /data, readOnly: true}]
    securityContext: {runAsUser: 1234, runAsGroup: 1235, allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
    resources: {limits: {memory: 64Mi, cpu: 250m}}
  - name: client
    image: ${BUSYBOX}
    command: [sh, -c, 'trap "exit 0" TERM; until wget -qO- http://127.0.0.1/; do sleep 0.05; done; echo ready >&2; while :; do sleep 0.1; done']
    env: [{name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]
  volumes: [{name: shared, emptyDir: {}}]
---
apiVersion: v1
kind: Pod
metadata: {name: job, namespace: shop}
spec:
  restartPolicy: Never
  containers: [{name: main, image: '${BUSYBOX}', command: [sh, -c, 'echo one; echo two >&2; exit 4']}]
`;

const pod = (name: string, containers: string) => `
apiVersion: v1
kind: Pod
metadata: {name: ${name}}
spec: {restartPolicy: Never, terminationGracePeriodSeconds: 0, containers: [${containers}]}
`;
const container = (name: string, script: string) =>
  `{name: ${name}, image: '${BUSYBOX}', imagePullPolicy: Never, command: [sh, -c, '${script}']}`;

const ID = /^[0-9a-f]{64}$/;
/** A loaded machine takes its time for each command. */
const POLL = { timeout: 30_000 };
/** The busybox image's name with the digest of the manifest that importing makes. */
const BY_DIGEST = /^localhost\/berth-test\/busybox@sha256:[0-9a-f]{64}$/;
const STAMP = /^\d{19}$/;

describe('berth against berthd', () => {
  let berthd: Berthd;
  let archive: string;

  beforeAll(async () => {
    berthd = await Berthd.start();
    archive = path.join(berthd.dir, 'busybox.tar');
    await writeFile(archive, await busyboxArchive(BUSYBOX, ['sh']));
    await done('import', archive);
  });
  afterAll(async () => {
    expect(await berthd?.close()).toEqual([]);
  });

  /** As a user types it: the launcher of the built program. */
  const berth = (...args: string[]) => start(berthd.endpoint, args, '', [BERTH]);
  const run = (yaml: string, ...args: string[]) => {
    const places = ['--pods-dir', path.join(berthd.dir, 'pods'), '--cgroup-parent', berthd.cgroupParent];
    return start(berthd.endpoint, ['run', ...places, ...args, '-'], yaml, [BERTH]);
  };
  /** What a command prints that must succeed and have nothing to say on stderr. */
  async function done(...args: string[]): Promise<string> {
    const result = await berth(...args);
    expect({ args, code: result.code, stderr: result.stderr }).toEqual({ args, code: 0, stderr: '' });
    return result.stdout;
  }
  const json = async (...args: string[]) => JSON.parse(await done('-o', 'json', ...args));
  const removeAll = async () => {
    const ids = (await done('pods', '-q', '--no-trunc')).split('\n').filter(Boolean);
    if (ids.length > 0) await done('rm', '-f', '-g', '0', ...ids);
    expect(await berthd.removeAllPods()).toEqual([]);
  };

  it('takes two pods through their life', async () => {
    const started = await run(PODS);
    expect(started).toMatchObject({ code: 0, stderr: '' });
    const ids = started.stdout.trim().split('\n');
    expect(ids).toEqual([expect.stringMatching(ID), expect.stringMatching(ID)]);

    const [ip] = await expect
      .poll(async () => (await berth('logs', 'web/client')).stderr, POLL)
      .toBe('ready\n')
      .then(async () => (await done('exec', 'web/client', '--', 'sh', '-c', 'echo $IP')).split('\n'));
    expect(await done('pods')).toMatch(
      new RegExp(
        '^POD +NAMESPACE +NAME +STATE +IP +AGE +RUNTIME\n' +
          `${ids[1]?.slice(0, 12)} +shop +job +ready +10\\.\\S+ +\\d+s +-\n` +
          `${ids[0]?.slice(0, 12)} +shop +web +ready +${ip} +\\d+s +-\n$`,
      ),
    );
    const row = (name: string, state: string) =>
      `[0-9a-f]{12} +shop/${name.split('/')[0]} +${name.split('/')[1]} +${state} +\\d+s +${BUSYBOX}\n`;
    expect(await done('ps')).toMatch(
      new RegExp(
        `^CONTAINER +POD +NAME +STATE +AGE +IMAGE\n${row('web/client', 'running')}${row('web/server', 'running')}$`,
      ),
    );
    await expect.poll(() => done('ps', '-a'), POLL).toMatch(new RegExp(row('job/main', 'exited \\(4\\)')));
    expect(await done('ps', '-a', '-p', 'shop/web')).toMatch(
      new RegExp(`${row('web/server', 'running')}${row('web/prepare', 'exited \\(0\\)')}$`),
    );

    expect(await berth('logs', 'web/client')).toMatchObject({
      code: 0,
      stdout: 'hello from berth\n',
      stderr: 'ready\n',
    });
    expect(await berth('logs', 'job/main')).toEqual({ code: 0, stdout: 'one\n', stderr: 'two\n' });
    const stamped = await berth('logs', '-t', '--tail', '1', 'job/main');
    expect(stamped.stderr || stamped.stdout).toMatch(/^\d{4}-\d\d-\d\dT\S+ (two|one)\n$/);

    const inside =
      "id -u; id -g; id -G; pwd; grep -E 'NoNewPrivs|CapEff' /proc/self/status; touch /x || touch /data/x";
    const said = await berth('exec', 'shop/web/server', '--', 'sh', '-c', inside);
    expect(said.stdout).toMatch(/^1234\n1235\n1235 4242\n\/data\nCapEff:\s0{16}\nNoNewPrivs:\s1\n$/);
    expect(said.stderr).toMatch(/\/x: Read-only file system\n.*\/data\/x: Read-only file system\n$/s);
    expect(said.code).toBe(1);
    expect(await berth('exec', 'web/client', '--', 'sh', '-c', 'echo out; echo err >&2; exit 200')).toEqual({
      code: 200,
      stdout: 'out\n',
      stderr: 'err\n',
    });
    expect(await done('exec', 'web/client', 'wget', '-qO-', `http://${ip}/`)).toBe('hello from berth\n');

    expect(await done('stats', 'web')).toMatch(
      /^CONTAINER +POD +NAME +CPU +MEMORY +SWAP +DISK\n([0-9a-f]{12} +shop\/web +(server|client) +\d+\.\d\d +[\d.]+ [KM]iB +(-|[\d.]+ \w*B) +[\d.]+ \w*B\n){2}$/,
    );

    const follow = berth('logs', '-f', 'web/client');
    await follow.shows('hello from berth\n');
    expect(await berth('rm', 'web')).toEqual({
      code: 1,
      stdout: '',
      stderr: 'berth: pod web is running; stop it first, or use --force\n',
    });
    expect(await done('stop', 'web')).toBe(`${ids[0]}\n`);
    // It ends when the container does.
    expect(await follow).toMatchObject({ code: 0, stdout: 'hello from berth\n', stderr: 'ready\n' });
    expect(await done('pods')).toMatch(/web +notready/);
    expect(await done('ps')).toBe('CONTAINER  POD  NAME  STATE  AGE  IMAGE\n');
    expect(await done('stop', 'web')).toBe(`${ids[0]}\n`);
    expect(await berth('exec', 'web/client', 'true')).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/^berth: .*(not running|exited)/),
    });
    expect(await done('rm', 'web')).toBe(`${ids[0]}\n`);
    expect(await done('rm', '-f', 'job')).toBe(`${ids[1]}\n`);
    expect(await berthd.removeAllPods()).toEqual([]);
  });

  it('removes an image by any name and takes it again', async () => {
    const [image] = await json('images');
    expect(await done('images')).toMatch(
      new RegExp(
        `^IMAGE +TAG +ID +SIZE +PINNED\nlocalhost/berth-test/busybox +1 +${image.id.slice(7, 19)} +[\\d.]+ MiB\n$`,
      ),
    );
    expect(await done('rmi', image.id.slice(7, 15))).toBe(`${image.id}\n`);
    expect(await done('images')).toBe('IMAGE  TAG  ID  SIZE  PINNED\n');
    expect(await berth('rmi', BUSYBOX)).toEqual({
      code: 3,
      stdout: '',
      stderr: `berth: image "${BUSYBOX}" not found\n`,
    });
    const [{ id, names }] = await json('import', archive);
    expect({ id, names }).toEqual({ id: image.id, names: [BUSYBOX, expect.stringMatching(BY_DIGEST)] });
    expect(await done('import', archive)).toBe(`${id} ${names.join(' ')}\n`);
  });

  it('prints JSON of one shape for programs', async () => {
    await removeAll();
    for (const list of [['pods'], ['ps', '-a'], ['stats']]) expect(await json(...list)).toEqual([]);
    const [started] = JSON.parse(
      (await run(pod('one', container('main', 'sleep 1000')), '-o', 'json')).stdout,
    );
    const sandbox = {
      id: expect.stringMatching(ID),
      state: 'SANDBOX_READY',
      created_at: expect.stringMatching(STAMP),
    };
    expect(started).toEqual({
      id: sandbox.id,
      name: 'one',
      namespace: 'default',
      uid: expect.any(String),
      ips: [expect.stringMatching(/^10\./)],
      containers: [{ name: 'main', id: expect.stringMatching(ID), init: false }],
    });
    const [id, main] = [started.id, started.containers[0].id];
    const metadata = { name: 'one', namespace: 'default', uid: started.uid, attempt: 0 };
    expect(await json('pods')).toEqual([
      {
        ...sandbox,
        metadata,
        labels: expect.any(Object),
        annotations: expect.any(Object),
        runtime_handler: '',
      },
    ]);
    expect(await json('ps')).toEqual([
      expect.objectContaining({
        id: main,
        pod_sandbox_id: id,
        state: 'CONTAINER_RUNNING',
        metadata: { name: 'main', attempt: 0 },
      }),
    ]);
    expect(await json('stats')).toEqual([
      expect.objectContaining({
        attributes: expect.objectContaining({ id: main }),
        cpu: expect.objectContaining({ usage_core_nano_seconds: { value: expect.stringMatching(/^\d+$/) } }),
        memory: expect.objectContaining({ working_set_bytes: { value: expect.stringMatching(/^\d+$/) } }),
      }),
    ]);
    expect(await json('images')).toEqual([
      expect.objectContaining({ repo_tags: [BUSYBOX], size: expect.stringMatching(/^\d+$/) }),
    ]);
    expect(await json('exec', 'one/main', '--', 'echo', 'x')).toEqual({
      stdout: 'x\n',
      stderr: '',
      exit_code: 0,
    });
    expect(await json('info')).toMatchObject({
      version: { runtime_name: 'berth', runtime_api_version: 'v1' },
      status: {
        conditions: [
          { type: 'RuntimeReady', status: true },
          { type: 'NetworkReady', status: true },
        ],
      },
      image_filesystems: [{ used_bytes: { value: expect.stringMatching(/^\d+$/) } }],
      node: { sandboxes: '1', containers: '1', images: '1', cleanup_tasks: [] },
      info: { config: { root: `${berthd.dir}/root` }, node: process.version, lastCNILoadStatus: 'OK' },
    });
    expect(await done('info')).toMatch(
      /^Daemon: +berth \S+, CRI v1\nRuntimeReady: +yes\nNetworkReady: +yes\n/,
    );
  });

  it('shows what the daemon knows of a pod, a container and an image', async () => {
    const [{ id: podId, pod_sandbox_id: owner, ...main }] = (await json('ps')).map((c: { id: string }) => c);
    const container = JSON.parse(await done('inspect', 'one/main'));
    expect(container).toMatchObject({
      kind: 'container',
      status: {
        id: podId,
        state: 'CONTAINER_RUNNING',
        log_path: expect.stringMatching(/main\/0\.log$/),
        image_id: main.image_id,
      },
      info: {
        info: {
          sandboxID: owner,
          pid: expect.any(Number),
          snapshotKey: podId,
          snapshotter: 'overlayfs',
          runtimeHandler: 'runc',
          runtimeType: 'oci',
          config: {
            metadata: { name: 'main' },
            command: ['sh', '-c', 'sleep 1000'],
            linux: { security_context: {} },
          },
          runtimeSpec: { ociVersion: expect.any(String), process: { args: ['sh', '-c', 'sleep 1000'] } },
        },
      },
    });
    expect(container.info.info.pid).toBeGreaterThan(1);
    // The environment in it is for root alone.
    expect((await stat(path.join(container.info.info.bundle, 'config.json'))).mode & 0o777).toBe(0o600);
    expect(JSON.parse(await done('inspect', 'one'))).toMatchObject({
      kind: 'pod',
      status: { id: owner, network: { ip: expect.stringMatching(/^10\./) } },
      info: {
        info: {
          pid: expect.any(Number),
          processStatus: 'running',
          netNamespaceClosed: false,
          runtimeHandler: 'runc',
          config: { metadata: { name: 'one' }, linux: { cgroup_parent: expect.any(String) } },
          runtimeSpec: { linux: { namespaces: expect.any(Array) } },
          cniResult: { ips: [{ address: expect.stringMatching(/^10\./) }] },
        },
      },
    });
    const image = JSON.parse(await done('inspect', BUSYBOX));
    expect(image).toMatchObject({
      kind: 'image',
      image: { id: main.image_id, repo_tags: [BUSYBOX] },
      info: {
        info: {
          chainID: expect.stringMatching(/^sha256:/),
          imageSpec: { os: 'linux', config: { Cmd: ['sh'] } },
        },
      },
    });
    expect(
      JSON.parse(await done('inspect', 'one', BUSYBOX)).map(({ kind }: { kind: string }) => kind),
    ).toEqual(['pod', 'image']);

    await done('stop', '-g', '0', 'one');
    const ended = JSON.parse(await done('inspect', podId.slice(0, 20)));
    expect(ended.status).toMatchObject({ state: 'CONTAINER_EXITED', exit_code: 137 });
    expect(ended.info.info.pid).toBe(0);
    expect(JSON.parse(await done('inspect', 'one')).info.info).toMatchObject({
      pid: 0,
      processStatus: 'stopped',
      netNamespaceClosed: true,
    });
    await removeAll();
  });

  it('takes the beginning of an id, unless several begin so', async () => {
    // Of 17 ids two begin with the same of 16 digits.
    const sixteen = Array.from({ length: 16 }, (_, i) => container(`c${i}`, 'true')).join(', ');
    expect(await run(pod('many', sixteen))).toMatchObject({ code: 0, stderr: '' });
    const ids: string[] = [...(await json('ps', '-a')), ...(await json('pods'))].map(({ id }) => id);
    const digit = [...'0123456789abcdef'].find((d) => ids.filter((id) => id.startsWith(d)).length > 1) ?? '';
    const same = ids.filter((id) => id.startsWith(digit));
    const refused = await berth('inspect', digit);
    expect(refused).toMatchObject({ code: 2, stdout: '' });
    const [first, ...lines] = refused.stderr.trimEnd().split('\n');
    expect(first).toBe(`berth: "${digit}" means more than one pod or container:`);
    expect(lines).toHaveLength(same.length);
    for (const id of same) {
      expect(lines).toContainEqual(
        expect.stringMatching(`^ {2}${id.slice(0, 12)}  (pod|container) default/many`),
      );
    }
    const [some = ''] = ids;
    expect(JSON.parse(await done('inspect', some.slice(0, 16))).status.id).toBe(some);
    // One that is to be changed is named as strictly, and nothing is changed.
    expect(await berth('rm', digit)).toMatchObject({ code: 2, stdout: '' });
    expect(await json('ps', '-a')).toHaveLength(16);
    await removeAll();
  });

  it.each<[string[], number, RegExp | string]>([
    [['logs', 'nope'], 3, 'container "nope" not found\n'],
    [['exec', 'nope', 'true'], 3, 'container "nope" not found\n'],
    [['stop', 'nope'], 3, 'pod or container "nope" not found\n'],
    [
      ['rm', '-f', 'nope', 'nada'],
      3,
      'pod or container "nope" not found\nberth: pod or container "nada" not found\n',
    ],
    [['inspect', 'nope'], 3, 'pod, container or image "nope" not found\n'],
    [['inspect', '../../etc'], 3, 'pod, container or image "../../etc" not found\n'],
    [['ps', '-p', 'nope'], 3, 'pod "nope" not found\n'],
    [['stats', 'nope'], 3, 'pod or container "nope" not found\n'],
    [['rmi', 'localhost/none:1'], 3, 'image "localhost/none:1" not found\n'],
    [['rmi', 'UPPER:1'], 2, /^image\S*: .*\n$/],
    [['stop', '-g', '-1', 'x'], 2, /--grace|argument missing/],
    [['logs', '--tail', 'x', 'nope'], 2, '--tail x: must be a number of lines\n'],
    [['logs', '--since', 'x', 'nope'], 2, /^--since x: must be a duration/],
    [['import', '/none.tar'], 1, /^read \/none\.tar: ENOENT/],
    [['run', '/none.yaml'], 2, /^read \/none\.yaml: ENOENT/],
    [['pull', 'localhost:1/none:1'], 1, /localhost:1/],
    [['frob'], 2, /^unknown command 'frob'/],
    [['stop'], 2, /^missing required argument 'pod-or-container'/],
  ])('answers %j with status %i and words, no stack', async (args, code, words) => {
    const { stderr, ...result } = await berth(...args);
    expect(result).toEqual({ code, stdout: '' });
    expect(stderr).toMatch(/^berth: /);
    const said = stderr.slice('berth: '.length);
    if (typeof words === 'string') expect(said).toBe(words);
    else expect(said).toMatch(words);
    expect(stderr).not.toMatch(/^ +at |node:|\.ts:|\.js:/m);
  });

  it.each([
    ['no Pod', '{apiVersion: v1, kind: Service}', /document 1: is v1 Service; berth runs/],
    ['no YAML', 'a: [', /^berth: -: /],
    ['a container without image', pod('x', '{name: a}'), /spec\.containers\[0\]\.image: /],
    [
      'an unknown volume',
      pod('x', `{name: a, image: '${BUSYBOX}', volumeMounts: [{name: v, mountPath: /v}]}`),
      /spec\.volumes has no v/,
    ],
    [
      'a secret',
      `${pod('x', container('a', 'true')).trimEnd().slice(0, -1)}, volumes: [{name: s, secret: {secretName: s}}]}`,
      /volumes\[0\]\.secret: /,
    ],
    [
      'an absent image',
      pod('x', container('a', 'true').replace(BUSYBOX, 'localhost/none:1')),
      /image localhost\/none:1 not found/,
    ],
    [
      'an absent command',
      pod('x', container('a', 'true').replace('sh, -c', '/no/such')),
      /container a: .*\/no\/such/,
    ],
    [
      'a handler that is not configured',
      pod('x', container('a', 'true')).replace('spec: {', 'spec: {runtimeClassName: kata, '),
      /runtime_handler: .*"kata".*runc/,
    ],
  ])('refuses a file with %s and leaves nothing', async (_name, yaml, words) => {
    const result = await run(yaml);
    expect(result.stderr).toMatch(words);
    expect(result).toMatchObject({ stdout: '' });
    expect(result.code).toBeGreaterThan(0);
    expect(result.stderr).not.toMatch(/^ +at /m);
    expect((await berthd.client.runtime('ListPodSandbox', {})).items).toEqual([]);
    expect(await berthd.removeAllPods()).toEqual([]);
  });

  it('follows a log until Ctrl-C, and prints no more than the reader wants', async () => {
    const endless = 'while :; do echo tick; sleep 0.05; done';
    await run(pod('loud', container('main', endless)));
    const follow = berth('logs', '-f', 'loud/main');
    await follow.shows('tick\ntick\n');
    follow.process.kill('SIGINT');
    expect(await follow).toMatchObject({ code: 130, stderr: '' });

    const env = { ...process.env, BERTH_ENDPOINT: berthd.endpoint };
    const reader = spawn(BERTH, ['logs', '-f', 'loud/main'], { env, stdio: ['ignore', 'pipe', 'pipe'] });
    let stderr = '';
    reader.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    await once(reader.stdout, 'data');
    // As head(1) does when it has seen enough.
    reader.stdout.destroy();
    expect(await once(reader, 'close')).toEqual([0, null]);
    expect(stderr).toBe('');
    await removeAll();
  });

  it('ends an exec at --timeout or Ctrl-C, and a command whose output is waited for with it', async () => {
    await run(pod('long', container('main', 'sleep 100000')));
    const asleep = async () => (await done('exec', 'long/main', '--', 'ps')).match(/sleep [78]000$/gm) ?? [];
    expect(await berth('--timeout', '1s', '-o', 'json', 'exec', 'long/main', '--', 'sleep', '7000')).toEqual({
      code: 1,
      stdout: '',
      stderr: 'berth: no answer within 1 s; --timeout says how long to wait\n',
    });
    await expect.poll(asleep, POLL).toEqual([]);
    const interrupted = berth('-o', 'json', 'exec', 'long/main', '--', 'sleep', '8000');
    await expect.poll(asleep, POLL).toEqual(['sleep 8000']);
    interrupted.process.kill('SIGINT');
    expect(await interrupted).toEqual({ code: 130, stdout: '', stderr: '' });
    await expect.poll(asleep, POLL).toEqual([]);
    // As with kubectl: without a terminal the command does not notice that its client has gone.
    const left = berth('exec', 'long/main', '--', 'sleep', '8000');
    await expect.poll(asleep, POLL).toEqual(['sleep 8000']);
    left.process.kill('SIGINT');
    expect(await left).toEqual({ code: 130, stdout: '', stderr: '' });
    expect(await asleep()).toEqual(['sleep 8000']);
    expect(await berth('exec', 'long/main', '--', 'no-such-program')).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/^berth: .*"no-such-program".*\n$/),
    });
    await removeAll();
  });

  it('says what to do when no daemon answers, and works again when one does', async () => {
    await run(pod('lasting', container('main', 'sleep 1000')));
    await berthd.stop('SIGKILL');
    const silent = await berth('pods');
    expect(silent).toMatchObject({ code: 4, stdout: '' });
    expect(silent.stderr).toBe(
      `berth: no daemon answers at ${berthd.endpoint}: nothing listens on the socket. Start it (systemctl ` +
        'start berthd, or bin/berthd --config FILE), or name its socket with --endpoint or BERTH_ENDPOINT\n',
    );
    await berthd.start();
    expect(await done('ps')).toMatch(/default\/lasting +main +running/);
    await removeAll();
  });
});
