import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readFile, realpath, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadShimProtos } from '../../proto/load-shim.ts';
import { makeFifo, makeFifos, openReader, openWriter } from '../../src/runtime/shim/fifos.ts';
import { listenForEvents, type ShimEvent } from '../../src/shim/events-sink.ts';
import { TaskClient } from '../../src/shim/task.ts';
import type { TtrpcServer } from '../../src/shim/ttrpc/server.ts';
import { deleteWithoutShim, startShim } from '../../src/shim/verbs.ts';
import { PolledStream } from '../../src/sys/polled-stream.ts';
import { Poller } from '../../src/sys/poller.ts';
import { busyboxRoot } from '../support/busybox.ts';
import { cgroupDirs, commandLines, killCgroup, removeCgroups } from '../support/host.ts';
import { refusal, runs, until } from '../support/pods.ts';
import { RUNC_SHIM } from '../support/shim.ts';

const exec = promisify(execFile);
const protos = loadShimProtos();
const tag = randomBytes(4).toString('hex');
const cgroup = `/berth-task-${tag}`;
const TERM = 15;
const KILL = 9;

let dir: string;
let poller: Poller;
let sink: TtrpcServer;
const events: ShimEvent[] = [];
const program = () => ({
  path: RUNC_SHIM,
  namespace: 'berth-test',
  events: path.join(dir, 'events'),
  debug: false,
});
const options = () => ({ runcOptions: { root: path.join(dir, 'runc'), systemd_cgroup: false } });

beforeAll(async () => {
  dir = await mkdtemp(path.join(await realpath(tmpdir()), `berth-task-${tag}-`));
  await busyboxRoot(path.join(dir, 'rootfs'));
  poller = new Poller();
  sink = await listenForEvents(program().events, protos, (event) => events.push(event));
});
afterAll(async () => {
  await sink.close();
  // Of failed tests.
  for (const [pid, line] of await commandLines()) {
    if (line.startsWith(RUNC_SHIM) && line.includes(` ${program().events}`)) process.kill(pid, 'SIGKILL');
  }
  await killCgroup(cgroup);
  await poller.close();
  expect(await removeCgroups(cgroup)).toEqual([]);
  await rm(dir, { recursive: true });
});

/** A container of the host's own busybox, in a bundle by hand. */
async function makeBundle(id: string, args: string[], terminal = false): Promise<string> {
  const bundle = path.join(dir, 'bundles', id);
  await mkdir(bundle, { recursive: true });
  await exec('runc', ['spec'], { cwd: bundle });
  const spec = JSON.parse(await readFile(path.join(bundle, 'config.json'), 'utf8'));
  Object.assign(spec.process, { args: ['/bin/busybox', ...args], terminal });
  spec.root = { path: path.join(dir, 'rootfs'), readonly: true };
  spec.linux.cgroupsPath = `${cgroup}/${id}`;
  await writeFile(path.join(bundle, 'config.json'), JSON.stringify(spec));
  return bundle;
}

interface Running {
  id: string;
  bundle: string;
  tasks: TaskClient;
  shim: number;
  stdin: string | undefined;
  output: Record<'stdout' | 'stderr', Promise<string>>;
}

async function startTask(args: string[], { stdin = false, tty = false } = {}): Promise<Running> {
  const id = `t${randomBytes(4).toString('hex')}`;
  const bundle = await makeBundle(id, args, tty);
  makeFifo(path.join(bundle, 'log'));
  const log = new PolledStream(poller, openReader(path.join(bundle, 'log')));
  log.on('error', () => {}).resume();
  const address = await startShim(program(), { id, dir: bundle }, {});
  const tasks = await TaskClient.connect(address, protos);
  const fifos = await makeFifos(path.join(bundle, 'stdio'), { stdin, tty });
  const read = (file?: string) =>
    file === undefined ? Promise.resolve('') : text(new PolledStream(poller, openReader(file)));
  const output = { stdout: read(fifos.stdout), stderr: read(fifos.stderr) };
  const shim = await tasks.shimPid(id);
  const pid = await tasks.create(id, bundle, { terminal: tty, ...fifos }, options());
  expect(await tasks.state(id)).toBe('CREATED');
  expect(runs(pid)).toBe(true);
  expect(await tasks.start(id)).toBe(pid);
  void tasks.closed.then(() => log.destroy());
  return { id, bundle, tasks, shim, stdin: fifos.stdin, output };
}

/** Deletes an ended container and ends its shim; nothing of either is left. */
async function end({ id, tasks, shim }: Running): Promise<void> {
  await tasks.delete(id);
  expect((await refusal(tasks.state(id))).kind).toBe('notFound');
  // Again says nothing.
  await tasks.delete(id);
  await tasks.shutdown(id);
  await tasks.closed;
  await until('the shim is gone', () => !runs(shim));
}

describe('the task service of containerd-shim-runc-v2', () => {
  it('runs a container: output, code, time and event of its end', async () => {
    const task = await startTask(['sh', '-c', 'echo out; echo err >&2; exit 3']);
    const { code, at } = await task.tasks.wait(task.id);
    expect(code).toBe(3);
    expect(Math.abs(Number((at ?? 0n) / 1_000_000n) - Date.now())).toBeLessThan(20_000);
    expect(await task.output.stdout).toBe('out\n');
    expect(await task.output.stderr).toBe('err\n');
    expect(await task.tasks.state(task.id)).toBe('STOPPED');
    // Until it is deleted.
    expect((await task.tasks.wait(task.id)).code).toBe(3);
    await until('the event has come', () => events.some((e) => e.container === task.id));
    expect(events.filter((e) => e.container === task.id)).toEqual([
      { kind: 'exit', container: task.id, process: task.id, pid: expect.any(Number), code: 3 },
    ]);
    await end(task);
  });

  it('takes input, until it is told that there is no more', async () => {
    const task = await startTask(['cat'], { stdin: true });
    const stdin = new PolledStream(poller, openWriter(task.stdin ?? ''));
    await new Promise((resolve) => stdin.write('typed\n', resolve));
    stdin.destroy();
    expect(await task.tasks.state(task.id)).toBe('RUNNING');
    await task.tasks.closeStdin(task.id);
    expect((await task.tasks.wait(task.id)).code).toBe(0);
    expect(await task.output.stdout).toBe('typed\n');
    await end(task);
  });

  it('signals, resizes terminals, runs and kills commands, tells pids and use of resources', async () => {
    const script = "trap 'busybox stty size; exit 9' TERM; while :; do busybox sleep 0.05; done";
    const task = await startTask(['sh', '-c', script], { tty: true });
    const { tasks, id } = task;
    await tasks.resizePty(id, '', { width: 101, height: 33 });
    const fifos = await makeFifos(path.join(task.bundle, 'exec'), { stdin: false, tty: false });
    const said = text(new PolledStream(poller, openReader(fifos.stdout)));
    const silent = new PolledStream(poller, openReader(fifos.stderr ?? ''));
    silent.resume();
    const command = (args: string[]) =>
      JSON.stringify({
        args: ['/bin/busybox', ...args],
        cwd: '/',
        env: ['PATH=/bin'],
        user: { uid: 0, gid: 0 },
      });
    await tasks.exec(id, 'e1', command(['sh', '-c', 'echo from a command; exec busybox sleep 1000']), {
      terminal: false,
      ...fifos,
    });
    const pid = await tasks.start(id, 'e1');
    expect(await tasks.processes(id)).toContainEqual({ pid, execId: 'e1' });
    await until(
      'it has spoken',
      async () => !(await readFile(`/proc/${pid}/cmdline`, 'utf8')).includes('-c'),
    );
    const { cgroup: version, metrics } = await tasks.stats(id);
    expect(Number(metrics.pids?.current)).toBeGreaterThanOrEqual(2);
    await tasks.update(id, JSON.stringify({ pids: { limit: 77 } }));
    expect(Number((await tasks.stats(id)).metrics.pids?.limit)).toBe(77);
    const dirs = await cgroupDirs(`${cgroup}/${id}`);
    const pids = dirs.find((at) => version === 'v2' || at.includes('/pids/'));
    expect(await readFile(path.join(pids ?? '', 'pids.max'), 'utf8')).toBe('77\n');
    await tasks.kill(id, KILL, { execId: 'e1' });
    expect((await tasks.wait(id, 'e1')).code).toBe(137);
    await tasks.delete(id, 'e1');
    expect(await said).toBe('from a command\n');
    silent.destroy();
    await tasks.exec(id, 'e2', command(['nothing of the kind']), { terminal: false });
    await tasks.start(id, 'e2');
    expect((await tasks.wait(id, 'e2')).code).toBe(127);
    await tasks.delete(id, 'e2');
    await tasks.kill(id, TERM);
    expect((await tasks.wait(id)).code).toBe(9);
    expect(await task.output.stdout).toBe('33 101\r\n');
    await end(task);
  });

  it('refuses a command that does not exist, with its name, and goes on', async () => {
    const id = `t${randomBytes(4).toString('hex')}`;
    const bundle = await makeBundle(id, []);
    const spec = JSON.parse(await readFile(path.join(bundle, 'config.json'), 'utf8'));
    spec.process.args = ['/no/such/command'];
    await writeFile(path.join(bundle, 'config.json'), JSON.stringify(spec));
    makeFifo(path.join(bundle, 'log'));
    const log = new PolledStream(poller, openReader(path.join(bundle, 'log')));
    log.on('error', () => {}).resume();
    const tasks = await TaskClient.connect(await startShim(program(), { id, dir: bundle }, {}), protos);
    const shim = await tasks.shimPid(id);
    const { kind, message } = await refusal(tasks.create(id, bundle, { terminal: false }, options()));
    expect(kind).toBe('internal');
    expect(message).toMatch(/^Create: .*\/no\/such\/command/);
    await end({
      id,
      bundle,
      tasks,
      shim,
      stdin: undefined,
      output: { stdout: Promise.resolve(''), stderr: Promise.resolve('') },
    });
    log.destroy();
  });

  it('ends with its death in every call, and the delete verb clears up after it', async () => {
    const task = await startTask(['sleep', '1000']);
    const [{ pid } = { pid: 0 }] = await task.tasks.processes(task.id);
    const waiting = refusal(task.tasks.wait(task.id));
    process.kill(task.shim, 'SIGKILL');
    expect((await waiting).kind).toBe('unavailable');
    expect(runs(pid)).toBe(true);
    const { code } = await deleteWithoutShim(program(), { id: task.id, dir: task.bundle }, protos);
    expect(code).toBe(137);
    await until('its process is gone', () => !runs(pid));
    await Promise.all(Object.values(task.output));
  });
});
