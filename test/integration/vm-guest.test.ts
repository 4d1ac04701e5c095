import { createHash } from 'node:crypto';
import { mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { release } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseDetails } from '../../cgroups/index.ts';
import { DETAIL_FILES } from '../../cgroups/v2/detail-files.ts';
import { stringifyOci } from '../../src/spec/json.ts';
import type { AgentStream } from '../../src/vm/agent-client/client.ts';
import { busyboxRoot } from '../support/busybox.ts';
import { bootGuest, type Guest, textOf } from '../support/guest.ts';

const MIB = 1024 * 1024;
const SIGKILL = 9;
const APPLETS = ['sh', 'cat', 'ps', 'sleep', 'yes', 'head', 'hostname', 'stty', 'tty', 'tail', 'nc'];

let guest: Guest;

beforeAll(async () => {
  guest = await bootGuest();
  await guest.client.call('configure', {
    hostname: 'pod-a',
    dns: { servers: ['10.0.0.53'], searches: ['example.org'], options: ['ndots:5'] },
    interfaces: [],
    sysctls: { 'net.ipv4.ip_forward': '1' },
    time: Date.now(),
    shares: [{ tag: 'berth', path: '/run/berth/shared' }],
  });
}, 400_000);

afterAll(async () => {
  await guest?.close();
});

interface Options {
  memory?: bigint;
  terminal?: boolean;
  namespaces?: object[];
  stdin?: boolean;
}

/** A container of the host's busybox, made and not started. */
async function create(id: string, args: string[], options: Options = {}) {
  const { terminal = false, memory } = options;
  const base = path.join(guest.shared, id);
  await mkdir(base, { recursive: true });
  const rootfs = path.join(base, 'rootfs');
  await busyboxRoot(rootfs);
  for (const name of APPLETS) await symlink('busybox', path.join(rootfs, 'bin', name));
  const stdout = guest.client.openStream();
  const stderr = terminal ? undefined : guest.client.openStream();
  const stdin = options.stdin || terminal ? guest.client.openStream() : undefined;
  const spec = {
    ociVersion: '1.0.2',
    process: processOf(args, terminal),
    root: { path: `/run/berth/shared/${id}/rootfs`, readonly: false },
    mounts: [
      { destination: '/proc', type: 'proc', source: 'proc', options: ['nosuid', 'noexec', 'nodev'] },
      { destination: '/dev', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'mode=755'] },
      {
        destination: '/dev/pts',
        type: 'devpts',
        source: 'devpts',
        options: ['newinstance', 'ptmxmode=0666'],
      },
    ],
    linux: {
      namespaces: options.namespaces ?? [{ type: 'pid' }, { type: 'mount' }, { type: 'cgroup' }],
      resources: {
        devices: [{ allow: false, access: 'rwm' }],
        ...(memory === undefined ? {} : { memory: { limit: memory, swap: memory } }),
      },
    },
  };
  const streams = {
    stdout: stdout.id,
    ...(stderr === undefined ? {} : { stderr: stderr.id }),
    ...(stdin === undefined ? {} : { stdin: stdin.id }),
  };
  const { pid } = await guest.client.call('createContainer', {
    id,
    spec: stringifyOci(spec),
    streams,
    terminal,
    size: { width: 80, height: 24 },
  });
  return { pid, stdout, stderr, stdin };
}

function processOf(args: string[], terminal = false) {
  return {
    terminal,
    user: { uid: 0, gid: 0 },
    args,
    env: ['PATH=/bin'],
    cwd: '/',
    capabilities: { bounding: ['CAP_KILL'], effective: ['CAP_KILL'], permitted: ['CAP_KILL'] },
    rlimits: [{ type: 'RLIMIT_CORE', soft: 0n, hard: 18446744073709551615n }],
    noNewPrivileges: true,
  };
}

async function exec(id: string, execId: string, args: string[], stdin?: string) {
  const [stdout, stderr] = [guest.client.openStream(), guest.client.openStream()];
  const input: AgentStream | undefined = stdin === undefined ? undefined : guest.client.openStream();
  const texts = Promise.all([textOf(stdout), textOf(stderr)]);
  // When the command cannot be started, the call says so, and the streams just end.
  texts.catch(() => {});
  const { pid } = await guest.client.call('exec', {
    ...{ id, execId, process: stringifyOci(processOf(args)), terminal: false },
    streams: { stdout: stdout.id, stderr: stderr.id, ...(input === undefined ? {} : { stdin: input.id }) },
  });
  input?.end(stdin);
  const [out, err] = await texts;
  return { pid, stdout: out, stderr: err, exit: await exitOf(id, execId) };
}

/** The event of a process's end. */
async function exitOf(id: string, execId?: string) {
  const ofIt = (event: (typeof guest.events)[number]) =>
    event.event === 'exit' && event.id === id && event.execId === execId;
  await expect.poll(() => guest.events.some(ofIt), { timeout: 30_000 }).toBe(true);
  const event = guest.events.find(ofIt);
  return event?.event === 'exit' ? event : undefined;
}

describe('a guest', () => {
  it('has its own kernel and what it was configured to', async () => {
    expect(guest.client.hello.kernel).not.toBe(release());
    expect(guest.client.hello.cpus).toBe(1);
    const c = await create('conf', [
      'sh',
      '-c',
      'hostname; cat /proc/sys/net/ipv4/ip_forward; echo wrong >&2; exit 3',
    ]);
    const [out, err] = [textOf(c.stdout), textOf(c.stderr as AgentStream)];
    await guest.client.call('start', { id: 'conf' });
    expect(await exitOf('conf')).toMatchObject({ code: 3 });
    expect(await out).toBe('pod-a\n1\n');
    expect(await err).toBe('wrong\n');
    await guest.client.call('remove', { id: 'conf' });
    await guest.client.call('remove', { id: 'conf' });
    await expect(guest.client.call('pids', { id: 'conf' })).rejects.toMatchObject({ kind: 'notFound' });
  });

  it('brings ten megabytes of log whole, while other calls are answered', async () => {
    const c = await create('logs', ['sh', '-c', 'yes 0123456789abcdef | head -c 10485760']);
    const hash = createHash('sha256');
    let bytes = 0;
    const read = (async () => {
      for await (const chunk of c.stdout) {
        bytes += chunk.length;
        hash.update(chunk);
      }
    })();
    await guest.client.call('start', { id: 'logs' });
    await expect.poll(() => bytes, { timeout: 30_000 }).toBeGreaterThan(MIB);
    await guest.client.call('podStats', {});
    expect(bytes).toBeLessThan(10 * MIB);
    await read;
    expect(bytes).toBe(10 * MIB);
    const wanted = Buffer.alloc(10 * MIB, '0123456789abcdef\n');
    expect(hash.digest('hex')).toBe(createHash('sha256').update(wanted).digest('hex'));
    expect(await exitOf('logs')).toMatchObject({ code: 0 });
    await guest.client.call('remove', { id: 'logs' });
  });

  it('runs commands in a container, tells what it uses, and ends it by a signal', async () => {
    const c = await create('main', ['sh', '-c', 'trap "exit 7" TERM; while :; do sleep 0.1; done']);
    c.stdout.resume();
    await guest.client.call('start', { id: 'main' });
    const cat = await exec('main', 'cat', ['sh', '-c', 'cat; echo no >&2; exit 5'], 'through stdin');
    expect(cat).toMatchObject({ stdout: 'through stdin', stderr: 'no\n', exit: { code: 5 } });
    await expect(exec('main', 'none', ['/nothing'])).rejects.toThrow(/no such file/);
    await writeFile(path.join(guest.shared, 'main/rootfs/from-host'), 'seen');
    expect((await exec('main', 'see', ['cat', '/from-host'])).stdout).toBe('seen');
    await exec('main', 'write', ['sh', '-c', 'echo back >/from-guest']);
    expect(await readFile(path.join(guest.shared, 'main/rootfs/from-guest'), 'utf8')).toBe('back\n');
    await guest.client.call('remove', { id: 'main', execId: 'cat' });
    const stats = await guest.client.call('stats', { id: 'main' });
    // The guest's kernel has all of them: what is not there, was not read.
    expect(Object.keys(stats.files).sort()).toEqual([...DETAIL_FILES].sort());
    const { cpu, memory, psi } = parseDetails(stats.files);
    expect([cpu.usageNs, memory.usageBytes].every((n) => n !== undefined && n > 0n)).toBe(true);
    expect([psi?.cpu, psi?.memory, psi?.io]).not.toContain(undefined);
    expect(Number(stats.processes)).toBeGreaterThan(0);
    expect(Number(stats.descriptors)).toBeGreaterThanOrEqual(3);
    expect(stats).toMatchObject({ sockets: '0', maxOpenFiles: expect.stringMatching(/^\d+$/) });
    await guest.client.call('update', { id: 'main', resources: '{"memory":{"limit":67108864}}' });
    const { files } = await guest.client.call('stats', { id: 'main' });
    expect(files['memory.max']).toBe('67108864\n');
    await guest.client.call('signal', { id: 'main', signal: 15 });
    expect(await exitOf('main')).toMatchObject({ code: 7 });
    expect(await guest.client.call('signal', { id: 'main', signal: 15 })).toEqual({ sent: false });
    await guest.client.call('remove', { id: 'main' });
  });

  it('gives a container a terminal with a size', async () => {
    const c = await create('tty', ['sh'], { terminal: true });
    let text = '';
    c.stdout.on('data', (chunk) => {
      text += String(chunk);
    });
    await guest.client.call('start', { id: 'tty' });
    await guest.client.call('resize', { id: 'tty', width: 101, height: 42 });
    c.stdin?.write('stty size; tty\n');
    await expect.poll(() => text, { timeout: 20_000 }).toMatch(/42 101\r\n\/dev\/pts\/0\r\n/);
    c.stdin?.write('exit 9\n');
    expect(await exitOf('tty')).toMatchObject({ code: 9 });
    await guest.client.call('remove', { id: 'tty' });
  });

  it('says when the kernel killed for memory', async () => {
    const c = await create('oom', ['sh', '-c', 'tail -c 200m /dev/zero'], { memory: 16n * BigInt(MIB) });
    c.stdout.resume();
    await guest.client.call('start', { id: 'oom' });
    expect(await exitOf('oom')).toMatchObject({ code: expect.any(Number) });
    const names = guest.events.filter((e) => 'id' in e && e.id === 'oom').map(({ event }) => event);
    expect(names).toEqual(['oom', 'exit']);
    await guest.client.call('remove', { id: 'oom' });
  });

  it('shares a PID namespace in a pod, reaches its ports, and kills all of a container', async () => {
    const namespaces = [{ type: 'pid', path: 'sandbox' }, { type: 'mount' }];
    const server = await create('server', ['nc', '-ll', '-p', '8080', '-e', 'cat'], {
      namespaces,
    });
    server.stdout.resume();
    await guest.client.call('start', { id: 'server' });
    const other = await create('other', ['ps'], { namespaces });
    const seen = textOf(other.stdout);
    await guest.client.call('start', { id: 'other' });
    expect(await seen).toMatch(/catatonit[\s\S]*nc -ll -p 8080/);
    const stream = guest.client.openStream({ halfOpen: true });
    await expect
      .poll(() =>
        guest.client.call('dial', { port: 8080, streamId: stream.id }).then(
          () => true,
          () => false,
        ),
      )
      .toBe(true);
    stream.end('hello');
    expect(await textOf(stream)).toBe('hello');
    const none = guest.client.openStream();
    await expect(guest.client.call('dial', { port: 9, streamId: none.id })).rejects.toMatchObject({
      kind: 'unavailable',
    });
    await guest.client.call('signal', { id: 'server', signal: SIGKILL, all: true });
    await exitOf('server');
    for (const id of ['server', 'other']) await guest.client.call('remove', { id });
  });

  it('ends in an orderly way when its host has gone', async () => {
    guest.client.close();
    expect(await guest.vm.ended).toMatchObject({ reason: expect.stringMatching(/shut down/) });
  });
});
