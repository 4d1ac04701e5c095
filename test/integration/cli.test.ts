import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Server, ServerCredentials, status } from '@grpc/grpc-js';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { NodeHandlers } from '../../proto/gen/berth/v1/Node.ts';
import { loadProtos } from '../../proto/load.ts';
import { BUSYBOX } from '../support/busybox.ts';
import { MAIN, start } from '../support/cli.ts';
import { Containerd } from '../support/containerd.ts';

const POD = `
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
  - name: prepare
    image: ${BUSYBOX}
    command: [sh, -c, 'echo prepared > /data/sub/file; seq 3']
    volumeMounts: [{name: d, mountPath: /data/sub, subPath: sub}]
  - name: side
    image: ${BUSYBOX}
    restartPolicy: Always
    command: [sleep, '1000']
  containers:
  - name: a
    image: ${BUSYBOX}
    command: [sh, -c]
    args: ['trap "exit 0" TERM; echo "at $(IP) on $(NODE)"; cat /data/sub/file; echo err >&2; while :; do sleep 0.1; done']
    env:
    - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    livenessProbe: {exec: {command: ['true']}}
    resources: {requests: {cpu: 100m}, limits: {cpu: 500m, memory: 64Mi}}
    volumeMounts: [{name: d, mountPath: /data, readOnly: true}]
  - name: b
    image: ${BUSYBOX}
    command: [sh, -c, 'trap "exit 0" TERM; touch /mem/x; id; while :; do sleep 0.1; done']
    securityContext: {runAsUser: 1000, runAsGroup: 1000, allowPrivilegeEscalation: false}
    volumeMounts: [{name: m, mountPath: /mem}]
  volumes: [{name: d, emptyDir: {}}, {name: m, emptyDir: {medium: Memory, sizeLimit: 4Mi}}]
`;

const job = (name: string, script: string, extra = '') => `
apiVersion: v1
kind: Pod
metadata: {name: ${name}}
spec:
  restartPolicy: Never
  ${extra}
  containers: [{name: main, image: '${BUSYBOX}', command: [sh, -c, '${script}']}]
`;

describe('pods in containerd', () => {
  let daemon: Containerd;
  let pods: string;

  beforeAll(async () => {
    daemon = await Containerd.start();
    pods = path.join(daemon.directory, 'pods');
  }, 60_000);
  afterAll(async () => {
    await daemon?.close();
  }, 60_000);
  afterEach(async () => {
    const ids = (await berth('pods', '-q')).stdout.split('\n').filter(Boolean);
    if (ids.length > 0) await berth('rm', '-f', '-g', '0', ...ids);
    expect((await berth('ps', '-aq')).stdout).toBe('');
    expect(await readdir(pods).catch(() => [])).toEqual([]);
    expect(await readFile('/proc/self/mountinfo', 'utf8')).not.toContain(pods);
  }, 60_000);

  const berth = (...args: string[]) => start(daemon.endpoint, args);
  const places = () => ['--pods-dir', pods, '--node-name', 'node-7', '--cgroup-parent', daemon.cgroupParent];
  const run = (yaml: string, ...args: string[]) =>
    start(daemon.endpoint, ['run', ...places(), ...args, '-'], yaml);

  it('runs a pod, shows it in every way, and leaves nothing', async () => {
    const started = await run(POD, '-o', 'json');
    expect(started.stderr).toBe(
      'berth: warning: pod web: spec.containers[0].livenessProbe has no effect: it needs a kubelet\n',
    );
    expect(started.code).toBe(0);
    const [pod] = JSON.parse(started.stdout);
    expect(pod).toMatchObject({
      name: 'web',
      namespace: 'default',
      ips: [expect.stringMatching(/^10\.231\.7\./)],
    });

    const ps = await berth('ps');
    expect(ps.stdout).toMatch(/^CONTAINER +POD +NAME +STATE +AGE +IMAGE\n/);
    expect(ps.stdout).toMatch(
      /^[0-9a-f]{12} +default\/web +a +running +\d+s +localhost\/berth-test\/busybox:1$/m,
    );
    expect(ps.stdout).not.toContain('prepare');
    expect((await berth('ps', '-a', '--pod', 'web')).stdout).toMatch(/prepare +exited \(0\)/);
    expect(JSON.parse((await berth('ps', '-a', '-o', 'json')).stdout)).toHaveLength(4);
    expect((await berth('pods')).stdout).toMatch(/default +web +ready/);

    const follow = berth('logs', '-f', 'web/a');
    await follow.shows(`at ${pod.ips[0]} on node-7\nprepared\n`);
    expect((await berth('logs', 'web/prepare')).stdout).toBe('1\n2\n3\n');
    expect((await berth('logs', '--tail', '2', 'web/prepare')).stdout).toBe('2\n3\n');
    await expect.poll(async () => (await berth('logs', '-t', 'web/a')).stderr).toMatch(/^\d{4}-.*Z err\n$/);
    await expect
      .poll(async () => (await berth('logs', 'web/b')).stdout)
      .toMatch(/^uid=1000(\(app\))? gid=1000/);

    expect(await berth('exec', 'web/a', '--', 'sh', '-c', 'echo out; echo err >&2; exit 7')).toEqual({
      code: 7,
      stdout: 'out\n',
      stderr: 'err\n',
    });
    expect((await berth('exec', 'web/a', 'ls', '-a', '/data')).stdout).toBe('.\n..\nsub\n');
    expect((await berth('exec', 'web/a', 'cat', '/etc/hosts')).stdout).toContain(`${pod.ips[0]}\tweb\n`);

    const inspected = JSON.parse((await berth('inspect', 'web/a')).stdout);
    expect(inspected.status.state).toBe('CONTAINER_RUNNING');
    expect(inspected.info.info.runtimeSpec.linux.resources).toMatchObject({
      cpu: { shares: 102, quota: 50_000, period: 100_000 },
      memory: { limit: 67_108_864 },
    });
    const stats = await berth('stats', 'web');
    expect(stats.stdout).toMatch(/default\/web +a +\d+\.\d\d +[\d.]+ [KM]iB/);
    expect(JSON.parse((await berth('stats', '-o', 'json')).stdout)).toHaveLength(3);

    expect((await berth('rm', 'web')).stderr).toBe(
      'berth: pod web is running; stop it first, or use --force\n',
    );
    expect((await run(POD)).stderr).toContain('pod default/web exists');
    expect((await berth('stop', 'default/web')).stdout).toBe(`${pod.id}\n`);
    expect((await follow).code).toBe(0);
    expect((await berth('pods')).stdout).toContain('notready');
    expect((await berth('start', 'web/a')).stderr).toContain('starts once in its life');
    expect((await berth('rm', pod.id.slice(0, 8))).stdout).toBe(`${pod.id}\n`);
    expect((await berth('inspect', pod.id)).code).toBe(3);
  }, 60_000);

  it('shows the end of jobs and ends as they do', async () => {
    const two = await run(`${job('one', 'echo 1; exit 0')}---\n${job('two', 'echo 2 >&2; exit 6')}`, '--rm');
    expect(two.code).toBe(6);
    expect(two.stdout).toBe('one/main: 1\n');
    expect(two.stderr).toBe('two/main: 2\n');
    expect((await run(job('alone', 'seq 3'), '--rm')).stdout).toBe('1\n2\n3\n');
  }, 60_000);

  it('removes the pod when it is interrupted', async () => {
    const running = run(
      job('long', 'echo up; while :; do sleep 1; done', 'terminationGracePeriodSeconds: 0'),
      '--rm',
    );
    await running.shows('up\n');
    running.process.kill('SIGINT');
    expect((await running).code).toBe(130);
    expect((await berth('pods', '-q')).stdout).toBe('');
  }, 60_000);

  it.each([
    [
      'an init container fails',
      job(
        'x',
        'true',
        `initContainers: [{name: i, image: '${BUSYBOX}', command: [sh, -c, 'echo why; exit 3']}]`,
      ),
      /^berth: pod default\/x: init container i: ended with status 3 \(Error\)\n {2}why\n$/,
    ],
    [
      'a command does not exist',
      job('x', 'true').replace('sh, -c', '/no/such'),
      /^berth: pod default\/x: container main: .*\/no\/such/,
    ],
    [
      'an image is absent',
      job('x', 'true')
        .replace(BUSYBOX, 'localhost/no:1')
        .replace('command', 'imagePullPolicy: Never, command'),
      /image localhost\/no:1 not found/,
    ],
    [
      'a pod must not be root and is',
      job('x', 'true', 'securityContext: {runAsNonRoot: true}'),
      /the image runs as root/,
    ],
  ])(
    'undoes everything when %s',
    async (_name, yaml, message) => {
      const result = await run(
        `${job('before', 'sleep 100', 'terminationGracePeriodSeconds: 0')}---\n${yaml}`,
      );
      expect(result.stderr).toMatch(message);
      expect(result.code).not.toBe(0);
      expect(result.stdout).toBe('');
      expect((await berth('pods', '-q')).stdout).toBe('');
      expect((await berth('ps', '-aq')).stdout).toBe('');
      expect(await readdir(pods)).toEqual([]);
    },
    60_000,
  );

  it('refuses a subPath that an init container made a way out', async () => {
    const planter = `initContainers:
  - {name: i, image: '${BUSYBOX}', command: [ln, -s, /etc, /d/out], volumeMounts: [{name: d, mountPath: /d}]}
  volumes: [{name: d, emptyDir: {}}]`;
    const yaml = job('x', 'ls /m', planter).replace(
      "'ls /m']",
      "'ls /m'], volumeMounts: [{name: d, mountPath: /m, subPath: out}]",
    );
    const result = await run(yaml);
    expect(result.stderr).toContain('subPath out: leads out of volume d');
    expect(result.code).toBe(2);
  }, 60_000);

  it('removes no directory that it did not mark as its own', async () => {
    expect((await run(job('web', 'true').replace('{name: web}', '{name: web, uid: u-9}'))).code).toBe(0);
    await rm(path.join(pods, 'u-9', '.berth-pod'));
    expect((await berth('rm', '-f', 'web')).code).toBe(0);
    expect(await readdir(path.join(pods, 'u-9'))).toContain('logs');
    await rm(path.join(pods, 'u-9'), { recursive: true });
  }, 60_000);
});

describe('containerd without pods', () => {
  let daemon: Containerd;
  beforeAll(async () => {
    daemon = await Containerd.start();
  }, 60_000);
  afterAll(async () => {
    await daemon?.close();
  }, 60_000);
  const berth = (...args: string[]) => start(daemon.endpoint, args);

  it('tells of the daemon and its images', async () => {
    const info = await berth('info');
    expect(info.stdout).toMatch(/^Daemon: +containerd 1\./);
    expect(info.stdout).toMatch(/^NetworkReady: +yes$/m);
    expect(JSON.parse((await berth('info', '-o', 'json')).stdout)).toMatchObject({
      node: null,
      version: { version: '0.1.0' },
    });
    expect((await berth('images')).stdout).toMatch(
      /^localhost\/berth-test\/busybox +1 +[0-9a-f]{12} +[\d.]+ MiB$/m,
    );
    const [id] = (await berth('images', '-q')).stdout.split('\n');
    expect(JSON.parse((await berth('inspect', id ?? '')).stdout)).toMatchObject({ kind: 'image' });
  });

  it('says what containerd cannot do', async () => {
    const refused = await start(daemon.endpoint, ['import', '-'], 'x'.repeat(5 << 20));
    expect(refused).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('this daemon imports no archives'),
    });
    const pull = await berth('pull', 'localhost:1/none:1');
    expect(pull).toMatchObject({
      code: 1,
      stdout: '',
      stderr: expect.stringMatching(/^berth: .*localhost:1/),
    });
  }, 30_000);

  it.each<[string[], number, RegExp]>([
    [['logs', 'nope'], 3, /^berth: container "nope" not found\n$/],
    [['rm', 'nope', 'nada'], 3, /"nope" not found\nberth: .*"nada" not found\n$/],
    [['rmi', 'localhost/none:1'], 3, /image "localhost\/none:1" not found/],
    [['ps', '--frob'], 2, /unknown option '--frob'/],
    [['frob'], 2, /unknown command 'frob'/],
    [['ps', '-o', 'xml'], 2, /Allowed choices are table, json/],
    [['ps', '--timeout', 'soon'], 2, /--timeout soon: must be a duration/],
    [['--endpoint', 'tcp://x', 'ps'], 2, /must be a unix socket/],
    [
      ['--endpoint', 'unix:///none/x.sock', 'ps'],
      4,
      /no daemon answers at .*there is no such socket\. Start it/,
    ],
    [['run', '/none.yaml'], 2, /read \/none\.yaml: ENOENT/],
    [['exec', 'web/a', '--'], 2, /missing required argument|no command/],
  ])('answers %j with status %i', async (args, code, message) => {
    const result = await berth(...args);
    expect(result).toMatchObject({ code, stdout: '' });
    expect(result.stderr).toMatch(message);
    expect(result.stderr).not.toMatch(/^ +at /m);
  });
});

/** berth's own service, which containerd lacks. */
describe('against a Node service', () => {
  let directory: string;
  let server: Server;
  const received = { name: '', bytes: 0, chunks: 0, cancelled: false };
  const GiB = String(1 << 30);
  const digests = ['a', 'b'].map((digit) => `sha256:${digit.repeat(64)}`);

  const handlers: Pick<NodeHandlers, 'PullImage' | 'ImportImage'> & { Info: NodeHandlers['Info'] } = {
    Info: (_call, answer) => answer(null, {}),
    PullImage: (call) => {
      call.on('cancelled', () => {
        received.cancelled = true;
      });
      for (const digest of digests) call.write({ layer: { digest, total_bytes: GiB, phase: 'WAITING' } });
      call.write({
        layer: { digest: digests[0] ?? '', total_bytes: GiB, done_bytes: '1024', phase: 'DOWNLOADING' },
      });
      if (call.request.image === 'slow') return;
      if (call.request.image === 'bad') {
        call.emit('error', {
          code: status.UNAUTHENTICATED,
          details: `user ${call.request.username} is refused`,
        });
        return;
      }
      for (const digest of digests)
        call.write({ layer: { digest, total_bytes: GiB, done_bytes: GiB, phase: 'DONE' } });
      call.write({ result: { image_ref: `sha256:${call.request.password || 'id'}` } });
      call.end();
    },
    ImportImage: (call, answer) => {
      Object.assign(received, { name: '', bytes: 0, chunks: 0 });
      call.on('data', ({ name, chunk }: { name?: string; chunk?: Buffer }) => {
        if (name) received.name = name;
        if (chunk) [received.bytes, received.chunks] = [received.bytes + chunk.length, received.chunks + 1];
        if (received.name === 'refuse' && received.chunks === 1) {
          answer({ code: status.INVALID_ARGUMENT, details: 'chunk: is no tar archive' });
        }
      });
      call.on('end', () => answer(null, { images: [{ id: 'sha256:1', names: [received.name, 'two'] }] }));
    },
  };

  beforeAll(async () => {
    directory = await mkdtemp(path.join(tmpdir(), 'berth-cli-node-'));
    server = new Server();
    server.addService(loadProtos().node, handlers);
    await new Promise<void>((resolve, reject) => {
      const done = (e: Error | null) => (e ? reject(e) : resolve());
      server.bindAsync(`unix:${directory}/s.sock`, ServerCredentials.createInsecure(), done);
    });
  });
  afterAll(async () => {
    server.forceShutdown();
    await rm(directory, { recursive: true });
  });
  const endpoint = () => `unix://${directory}/s.sock`;

  it('pulls with a line per layer and phase', async () => {
    const result = await start(endpoint(), ['pull', 'x']);
    expect(result).toMatchObject({ code: 0, stdout: 'sha256:id\n' });
    expect(result.stderr).toBe(
      'layer aaaaaaaaaaaa: downloading (1.0 GiB)\nlayer aaaaaaaaaaaa: done (1.0 GiB)\nlayer bbbbbbbbbbbb: done (1.0 GiB)\n',
    );
  });

  it('hands credentials over, and shows a refusal', async () => {
    const args = ['-u', 'bot', '--password-stdin'];
    expect((await start(endpoint(), ['pull', ...args, 'x'], 'secret\n')).stdout).toBe('sha256:secret\n');
    const refused = await start(endpoint(), ['pull', ...args, 'bad'], 'secret\n');
    expect(refused.code).toBe(1);
    expect(refused.stderr).toContain('berth: user bot is refused\n');
    expect((await start(endpoint(), ['pull', '-u', 'bot', 'x'])).code).toBe(2);
  });

  const onTerminal = (args: string) =>
    start(endpoint(), ['-qec', `${process.execPath} ${MAIN} ${args}`, '/dev/null'], '', ['script']);

  it('draws a bar per layer on a terminal, and leaves the cursor as it was', async () => {
    const { code, stdout } = await onTerminal('pull x');
    expect(code).toBe(0);
    expect(stdout).toMatch(/aaaaaaaaaaaa {2}\[=+\] {2}1\.0 GiB \/ 1\.0 GiB {2}done/);
    expect(stdout).toMatch(/bbbbbbbbbbbb {2}\[=+\]/);
    expect(stdout.lastIndexOf('\u001b[?25h')).toBeGreaterThan(stdout.lastIndexOf('\u001b[?25l'));
    expect(stdout.lastIndexOf('\u001b[?25l')).toBeGreaterThan(-1);
  });

  it('leaves the cursor as it was after Ctrl-C, and ends the pull', async () => {
    const child = spawn('script', ['-qec', `${process.execPath} ${MAIN} pull slow`, '/dev/null'], {
      env: { ...process.env, BERTH_ENDPOINT: endpoint() },
      stdio: 'pipe',
    });
    let text = '';
    child.stdout.setEncoding('utf8').on('data', (part: string) => {
      text += part;
    });
    while (!text.includes('downloading')) await once(child.stdout, 'data');
    child.stdin.write('\u0003');
    const [code] = await once(child, 'close');
    expect(code).toBe(130);
    expect(text.lastIndexOf('\u001b[?25h')).toBeGreaterThan(text.lastIndexOf('\u001b[?25l'));
    await expect.poll(() => received.cancelled).toBe(true);
  });

  it('imports from a file and from standard input, in pieces', async () => {
    const file = path.join(directory, 'a.tar');
    await writeFile(file, Buffer.alloc(3 << 20));
    const result = await start(endpoint(), ['import', '--name', 'one', file]);
    expect(result).toMatchObject({ code: 0, stdout: 'sha256:1 one two\n' });
    expect(received).toMatchObject({ name: 'one', bytes: 3 << 20 });
    expect(received.chunks).toBeGreaterThanOrEqual(3);
    const piped = await start(endpoint(), ['-o', 'json', 'import', '-'], 'x'.repeat(1_500_000));
    expect(JSON.parse(piped.stdout)).toEqual([{ id: 'sha256:1', names: ['', 'two'] }]);
    expect(received.bytes).toBe(1_500_000);
  });

  it('stops sending an archive that is refused, and names a file that cannot be read', async () => {
    const file = path.join(directory, 'big.tar');
    await writeFile(file, Buffer.alloc(20 << 20));
    const refused = await start(endpoint(), ['import', '-n', 'refuse', file]);
    expect(refused).toMatchObject({ code: 2, stderr: 'berth: chunk: is no tar archive\n' });
    const missing = await start(endpoint(), ['import', '/none.tar']);
    expect(missing).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('berth: read /none.tar: ENOENT'),
    });
  });
});

describe('launchers', () => {
  it.each(['berth', 'berthd'])('%s names what is missing, also through a symlink', async (name) => {
    const directory = await mkdtemp(path.join(tmpdir(), 'berth-bin-'));
    try {
      await mkdir(path.join(directory, 'co/bin'), { recursive: true });
      const script = await readFile(path.resolve(import.meta.dirname, '../../bin', name));
      await writeFile(path.join(directory, 'co/bin', name), script, { mode: 0o755 });
      await symlink(`co/bin/${name}`, path.join(directory, 'link'));
      const result = await start('', [], '', [path.join(directory, 'link')]);
      expect(result.code).toBe(1);
      expect(result.stderr).toMatch(
        new RegExp(`^${name}: ${directory}/co/node_modules/node-linux-\\w+/bin/node is missing`),
      );
      expect(result.stderr).toContain("'npm ci && npm run build'");
    } finally {
      await rm(directory, { recursive: true });
    }
  });
});
