import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { cgroupDirs, commandLines } from '../support/host.ts';
import { type Owner, traces } from '../support/leaks.ts';

const ROOT = path.resolve(import.meta.dirname, '../..');
const NODE = path.join(ROOT, 'node_modules/.bin/node');
const DEMO = path.join(ROOT, 'test/demo/demo.ts');
const REACH_MS = 90_000;
const NO_TRACES = { processes: [], mounts: [], links: [], leases: [], cgroups: [], files: [] };

/** A demo that was started; what it prints is collected as it comes. */
class Run {
  readonly process: ChildProcess;
  stdout = '';
  stderr = '';
  readonly #end: Promise<unknown[]>;

  constructor(env: Record<string, string> = {}, wrapper: string[] = []) {
    const [program = NODE, ...args] = [...wrapper, NODE, DEMO];
    this.process = spawn(program, args, {
      cwd: ROOT,
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.process.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.stdout += text;
    });
    this.process.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text;
    });
    this.#end = once(this.process, 'close');
  }

  /** The exit code, once all output is there. */
  async end(): Promise<number | null> {
    await this.#end;
    return this.process.exitCode;
  }

  async reaches(text: string): Promise<void> {
    for (const since = Date.now(); !this.stdout.includes(text); await delay(10)) {
      const ended = this.process.exitCode ?? this.process.signalCode;
      if (ended === null && Date.now() - since < REACH_MS) continue;
      throw new Error(`${ended ?? 'slow'}: no "${text}" in\n${this.stdout}${this.stderr}`);
    }
  }

  /** By what the things of this demo are told from others', from its own output. */
  get owner(): Owner {
    const [, dir, tag] = /--config (\S+berthd-([0-9a-f]{8})-\w+)\//.exec(this.stdout) ?? [];
    if (dir === undefined || tag === undefined) throw new Error(`no daemon in: ${this.stdout}`);
    return { dir, bridge: `bt${tag}`, cgroupParent: `/berth-${tag}` };
  }
}

async function expectNoTraces(owner: Owner): Promise<void> {
  expect(await traces(owner)).toEqual(NO_TRACES);
  expect(existsSync(owner.dir)).toBe(false);
  expect(existsSync(`/sys/class/net/${owner.bridge}`)).toBe(false);
  expect(await cgroupDirs(owner.cgroupParent)).toEqual([]);
}

const runs: Run[] = [];

function demo(env?: Record<string, string>, wrapper?: string[]): Run {
  const run = new Run(env, wrapper);
  runs.push(run);
  return run;
}

afterEach(async () => {
  for (const run of runs.splice(0)) {
    // A test that failed half way: SIGINT lets the demo take down what it made.
    run.process.kill('SIGINT');
    await run.end();
  }
});

describe('npm run demo', { timeout: 180_000 }, () => {
  it('shows a pod of two containers and leaves nothing, also twice at once', async () => {
    const both = [demo(), demo()];
    for (const run of both) {
      expect([await run.end(), run.stderr]).toEqual([0, '']);
      const { stdout, owner } = run;
      expect(stdout).toMatch(/^ {2}"ip": "(10\.10\.0\.\d+)"[\s\S]*inet \1\/24/m);
      for (const kind of ['network', 'UTS', 'IPC']) {
        expect(stdout).toMatch(new RegExp(`^ {2}${kind} +(\\w+:\\[\\d+\\]) +\\1 +the same$`, 'm'));
      }
      expect(stdout).toMatch(/^ {2}mount +(mnt:\[\d+\]) +(?!\1)mnt:\[\d+\] +each its own$/m);
      expect(stdout).toMatch(
        /\$ berth exec demo\/client -- wget .*127\.0\.0\.1:8080\/\n {2}Hello from web in pod demo\n/,
      );
      expect(stdout).toMatch(/\$ berth logs .*demo\/web\n {2}127\.0\.0\.1:\d+: response:200\n/);
      expect(stdout).toMatch(/\$ berth logs .*demo\/client\n {2}answer \d+: Hello from web in pod demo\n/);
      for (const meaning of ['ms of CPU time', 'of memory in use', '32.0 MiB is the limit']) {
        expect(stdout.split(meaning)).toHaveLength(3);
      }
      expect(stdout).toContain('client  exited (0)');
      expect(stdout).toContain('web     exited (0)');
      const counts = [...stdout.matchAll(/^ {2}[a-zA-Z ]+? {2,}(\d+) +(\d+)$/gm)];
      expect(counts).toHaveLength(7);
      for (const [line, before, now] of counts) {
        expect([line, Number(before) > 0, now]).toEqual([line, true, '0']);
      }
      expect(stdout).not.toContain('\u001b');
      await expectNoTraces(owner);
    }
  });

  it.each(['3. Run a pod', '6. One container'])('takes all down after SIGINT at "%s"', async (heading) => {
    const run = demo();
    await run.reaches(heading);
    run.process.kill('SIGINT');
    expect([await run.end(), run.stderr]).toEqual([130, '']);
    expect(run.stdout).toContain('Everything has been taken down; nothing is left behind.');
    await expectNoTraces(run.owner);
  });

  it('takes all down when nobody reads its output any more', async () => {
    const run = demo();
    await run.reaches('4. The pod');
    run.process.stdout?.destroy();
    expect(await run.end()).toBe(141);
    await expectNoTraces(run.owner);
  });

  it('takes all down by force when berthd dies', async () => {
    const run = demo();
    await run.reaches('6. One container');
    const { owner } = run;
    const [daemon] =
      [...(await commandLines())].find(([, line]) =>
        line.endsWith(`berthd.cjs --config ${owner.dir}/config.toml`),
      ) ?? [];
    if (daemon === undefined) throw new Error('no berthd');
    process.kill(daemon, 'SIGKILL');
    expect(await run.end()).toBe(1);
    expect(run.stderr).toMatch(/^demo: failed: berth \w+ ended with status 4: /m);
    expect(run.stderr).toMatch(/^demo: had to be taken down by force:\n( {2}- .*\n)+$/m);
    await expectNoTraces(owner);
  });
});

describe('what is missing', () => {
  let dir = '';
  afterEach(() => rm(dir, { recursive: true, force: true }));

  it('is a program: its name, path and package are told', async () => {
    const hide =
      'mount --bind /dev/null /usr/sbin/runc && mount --bind /dev/null /usr/lib/cni/bridge && exec "$@"';
    const run = demo({}, ['unshare', '--mount', 'sh', '-c', hide, 'sh']);
    expect([await run.end(), run.stdout]).toEqual([1, '']);
    expect(run.stderr).toBe(
      'demo: this machine lacks what the demo needs:\n' +
        '  - the OCI runtime runc is not at /usr/sbin/runc: run "apt-get install runc"\n' +
        '  - the CNI plugin bridge is not at /usr/lib/cni/bridge: run "apt-get install containernetworking-plugins"\n',
    );
  });

  it('is a privilege', async () => {
    const run = demo({}, ['setpriv', '--bounding-set', '-sys_admin']);
    expect([await run.end(), run.stdout]).toEqual([1, '']);
    expect(run.stderr).toContain('  - CAP_SYS_ADMIN: this root lacks it; run the demo outside a container');
  });

  it('is cgroups', async () => {
    const run = demo({}, [
      'unshare',
      '--mount',
      'sh',
      '-c',
      'umount -R -l /sys/fs/cgroup && exec "$@"',
      'sh',
    ]);
    expect([await run.end(), run.stdout]).toEqual([1, '']);
    expect(run.stderr).toContain('  - the cgroup controller memory is not below /sys/fs/cgroup: ');
  });

  it('is a temporary directory that will do', async () => {
    dir = await mkdtemp(path.join(tmpdir(), 'berth-demo-test-'));
    const long = path.join(dir, 'x'.repeat(100));
    await mkdir(long);
    for (const [place, text] of [
      [path.join(dir, 'absent'), 'does not exist: set TMPDIR'],
      [long, 'is too long to hold a socket: set TMPDIR to a shorter one'],
    ] as const) {
      const run = demo({ TMPDIR: place });
      expect([await run.end(), run.stdout]).toEqual([1, '']);
      expect(run.stderr).toContain(text);
    }
  });
});
