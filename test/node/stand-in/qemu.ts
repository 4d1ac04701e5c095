/**
 * A stand-in for QEMU and for the agent in its guest, where a real guest would be an emulation inside an emulation. It
 * runs nothing: it answers QMP as far as a start needs it, and plays containers, which run until they are killed. One
 * whose first argument is `eat` takes memory, as a guest does that uses what it has, until this process is killed.
 */
import { connect, createServer } from 'node:net';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import type { Handlers } from '../../../src/vm/agent/agent.ts';

const MIB = 1 << 20;
/** So that it is the largest process of its pod, as a machine is. */
const SIZE = 96 * MIB;
const BITE = 4 * MIB;
const BITE_MS = 10;

const memory = [Buffer.alloc(SIZE, 1)];
const hungry = new Set<string>();

function socketOf(id: string): string {
  const chardev = process.argv.find((arg) => arg.startsWith('socket,') && arg.includes(`id=${id},`));
  const [, path] = /path=([^,]+)/.exec(chardev ?? '') ?? [];
  if (path === undefined) throw new Error(`no socket "${id}" in ${process.argv.join(' ')}`);
  return path;
}

function playQmp(): void {
  const qmp = connect(socketOf('qmp'));
  qmp.on('error', () => {});
  qmp.write(`${JSON.stringify({ QMP: { version: {}, capabilities: [] } })}\n`);
  createInterface({ input: qmp }).on('line', (line) => {
    const { id, execute } = JSON.parse(line);
    const answer = execute === 'query-status' ? { status: 'running', running: true } : {};
    qmp.write(`${JSON.stringify({ id, return: answer })}\n`);
  });
}

async function eat(): Promise<never> {
  for (;;) {
    memory.push(Buffer.alloc(BITE, 1));
    await delay(BITE_MS);
  }
}

const done = () => ({});
const unknown = (): never => {
  throw new Error('not played');
};
const handlers: Handlers = {
  // Of this very checkout, so the versions are the same.
  hello: ({ version }) => ({
    ...{ version, kernel: 'stand-in', bootMs: 1, memoryBytes: `${SIZE}`, cpus: 1 },
  }),
  configure: done,
  createContainer: ({ id, spec }) => {
    if (JSON.parse(spec).process.args[0] === 'eat') hungry.add(id);
    return { pid: 1 };
  },
  start: ({ id }) => {
    if (hungry.has(id)) void eat();
    return {};
  },
  signal: () => ({ sent: true }),
  remove: done,
  shutdown: done,
  ...{ exec: unknown, resize: done, closeStdin: done, update: done, pids: () => ({ pids: [1] }) },
  ...{ pause: done, resume: done, stats: unknown, podStats: unknown, dial: unknown, mounts: done },
  ...{ unmount: done, online: unknown, getFile: unknown, putFiles: unknown },
};

// QMP is answered at once, before what speaks with the agent's host is loaded.
createServer(async (host) => {
  const { serve } = await import('../../../src/vm/agent/serve.ts');
  serve(host, handlers, (method) => {
    if (method === 'shutdown') host.end(() => process.exit(0));
  });
}).listen(socketOf('agent'), playQmp);
