import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { Command } from 'commander';
import { withNamespace } from '../../src/sys/namespaces.ts';
import { Berthd } from '../support/berthd.ts';
import { Pods, sh, until } from '../support/pods.ts';
import { forwardOverSpdy } from '../support/port-forward.ts';
import { openSpdy, openWebSocket, type RemoteClient, type Wanted } from '../support/remote-command.ts';

/** How much is done. */
interface Size {
  bytes: number;
  /** How long the reader stops, milliseconds. */
  stopMs: number;
  execs: number;
}

const FULL: Size = { bytes: 300_000_000, stopMs: 10_000, execs: 10_000 };
const QUICK: Size = { bytes: 30_000_000, stopMs: 2_000, execs: 200 };
const MB = 1_000_000;
const OUTPUT: Wanted = { stdout: true, stderr: true };
const ALL: Wanted = { stdin: true, ...OUTPUT };

const { quick } = new Command('streaming')
  .description("Measures this checkout's berthd: bytes through exec, attach and port-forward, and its memory")
  .option('--quick', 'a look')
  .parse()
  .opts<{ quick?: boolean }>();
const size = quick === true ? QUICK : FULL;
const berthd = await Berthd.start();
try {
  await berthd.importBusybox();
  const pods = new Pods(berthd);
  const pod = await pods.run();
  const container = await pods.start(pod);
  await throughput(container);
  await portForward(pod.id);
  await stoppedReader(pods, pod.id, container);
  await failingExecs(container);
} finally {
  const left = await berthd.close();
  if (left.length > 0) say('left behind', left.join(', '));
}

function say(what: string, result: string): void {
  process.stdout.write(`${what.padEnd(62)} ${result}\n`);
}

/** Memory of the daemon now and at its peak, in MB. */
function memory(): { now: number; peak: number } {
  const status = readFileSync(`/proc/${berthd.pid}/status`, 'latin1');
  const of = (name: string) => (Number(new RegExp(`${name}:\\s+(\\d+)`).exec(status)?.[1]) * 1024) / MB;
  return { now: of('VmRSS'), peak: of('VmHWM') };
}

async function execUrl(container_id: string, cmd: string[], wanted: Wanted): Promise<string> {
  return (await berthd.client.runtime('Exec', { container_id, cmd, ...wanted })).url;
}

/** Counts output and keeps none. */
function count(client: RemoteClient): () => number {
  let bytes = 0;
  client.onOutput = (kind, piece) => {
    bytes += kind === 'stdout' ? piece.length : 0;
    client.got[kind].length = 0;
  };
  return () => bytes;
}

async function rate(what: string, bytes: number, work: () => Promise<unknown>): Promise<void> {
  const began = performance.now();
  await work();
  say(what, `${(bytes / MB / ((performance.now() - began) / 1000)).toFixed(0)} MB/s`);
}

async function throughput(container: string): Promise<void> {
  const cmd = ['sh', '-c', `head -c ${size.bytes} /dev/zero`];
  const open = { SPDY: openSpdy, WebSocket: (url: string) => openWebSocket(url) };
  for (const [transport, connect] of Object.entries(open)) {
    await rate(`exec, output, ${transport}`, size.bytes, async () => {
      const client = await connect(await execUrl(container, cmd, OUTPUT), OUTPUT);
      count(client);
      await client.closed;
    });
    await rate(`exec, input, ${transport}`, size.bytes, async () => {
      const client = await connect(await execUrl(container, ['cat'], { stdin: true, stderr: true }), ALL);
      const piece = Buffer.alloc(64 * 1024);
      for (let sent = 0; sent < size.bytes; sent += piece.length) {
        client.send(piece);
        if (sent % (1 << 22) === 0) await client.drained();
      }
      client.endInput();
      await client.closed;
    });
  }
}

async function portForward(id: string): Promise<void> {
  const server = createServer({ allowHalfOpen: true }, (socket: Socket) => {
    const piece = Buffer.alloc(64 * 1024);
    let sent = 0;
    const more = () => {
      for (; sent < size.bytes; ) {
        sent += piece.length;
        if (!socket.write(piece)) return;
      }
      socket.end();
    };
    socket.on('drain', more);
    socket.on('error', () => {});
    more();
  });
  withNamespace(`${berthd.dir}/state/sandboxes/${id}/ns/net`, 'net', () => void server.listen(7000));
  await once(server, 'listening');
  const { url } = await berthd.client.runtime('PortForward', { pod_sandbox_id: id });
  const client = await forwardOverSpdy(url);
  await rate('port-forward, from the pod', size.bytes, async () => {
    const connection = await client.open(7000);
    connection.keep = false;
    connection.end();
    await until('the end', () => connection.done, 300_000);
  });
  client.destroy();
  server.close();
}

/** A reader that stops, of an exec and of a container that others attach to as well. */
async function stoppedReader(pods: Pods, podId: string, container: string): Promise<void> {
  const endless = await openSpdy(await execUrl(container, ['cat', '/dev/zero'], OUTPUT), OUTPUT);
  const read = count(endless);
  await until('output', () => read() > MB);
  let before = memory().peak;
  endless.pause();
  await delay(size.stopMs);
  say(
    `exec, reader stops ${size.stopMs / 1000} s: more memory at the peak`,
    `${(memory().peak - before).toFixed(1)} MB`,
  );
  endless.vanish();

  const config = { id: podId, config: pods.config() };
  const talker = await pods.start(
    config,
    sh('read go; yes 0123456789012345678901234567890123456789', { stdin: true }),
  );
  const attach = async (wanted: Wanted) =>
    openSpdy((await berthd.client.runtime('Attach', { container_id: talker, ...wanted })).url, wanted);
  const [slow, quick] = [await attach(OUTPUT), await attach(ALL)];
  const came = count(quick);
  slow.pause();
  before = memory().peak;
  const began = performance.now();
  quick.send('go\n');
  await delay(size.stopMs);
  const speed = came() / MB / ((performance.now() - began) / 1000);
  say(`attach beside a reader that stops ${size.stopMs / 1000} s`, `${speed.toFixed(0)} MB/s`);
  say('attach, the same: more memory at the peak', `${(memory().peak - before).toFixed(1)} MB`);
  await pods.stop(talker);
  slow.vanish();
  quick.vanish();
}

async function failingExecs(container_id: string): Promise<void> {
  const fail = async () => {
    await berthd.client.runtime('ExecSync', { container_id, cmd: ['no-such-command'] }).catch(() => {});
  };
  for (let i = 0; i < Math.min(200, size.execs); i++) await fail();
  const [before, openBefore] = [memory().now, openFiles()];
  const began = performance.now();
  for (let i = 0; i < size.execs; i++) await fail();
  const each = (performance.now() - began) / size.execs;
  say(`${size.execs} failing execs: each`, `${each.toFixed(1)} ms`);
  say(
    `${size.execs} failing execs: memory before and after`,
    `${before.toFixed(0)} and ${memory().now.toFixed(0)} MB`,
  );
  say(`${size.execs} failing execs: open files before and after`, `${openBefore} and ${openFiles()}`);
}

/** Of the daemon. */
function openFiles(): number {
  return readdirSync(`/proc/${berthd.pid}/fd`).length;
}
