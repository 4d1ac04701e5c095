/**
 * `npm run demo`: a berthd of its own runs a pod of two containers, shows what that is made of, and takes
 * all of it down again. Ends with 0; 1 when something is missing, failed or was left behind; 128 plus the
 * signal when it was interrupted. Whatever the end, nothing stays.
 */
import { writeFile } from 'node:fs/promises';
import { constants } from 'node:os';
import path from 'node:path';
import { messageOf } from '../../src/errors.ts';
import { Berthd } from '../support/berthd.ts';
import { Console } from './console.ts';
import { missing } from './requirements.ts';
import { Tour } from './tour.ts';

/** Each ends the demo. */
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

const LONGEST_LINE = 300;

process.exitCode = await main().catch((e: unknown) => {
  process.stderr.write(`demo: failed: ${messageOf(e)}\n`);
  return 1;
});

async function main(): Promise<number> {
  const begin = Date.now();
  const lacking = missing();
  if (lacking.length > 0) {
    process.stderr.write(`demo: this machine lacks what the demo needs:\n${bullets(lacking)}`);
    return 1;
  }
  const out = new Console(process.stdout);
  const interrupted = listen(out);
  const done = await show(out, interrupted);
  const name = ([...SIGNALS, 'SIGPIPE'] as const).find((signal) => signal === interrupted.reason);
  if (name !== undefined) return 128 + constants.signals[name];
  if (done) out.line(`\nDone in ${((Date.now() - begin) / 1000).toFixed(1)} s.`);
  return done ? 0 : 1;
}

/** Aborted, with the signal's name as reason, when the demo is to end; only the first one counts. */
function listen(out: Console): AbortSignal {
  const controller = new AbortController();
  for (const name of SIGNALS) {
    process.on(name, () => {
      if (!controller.signal.aborted) out.line(`\n${name}: taking all of it down …`);
      controller.abort(name);
    });
  }
  // Its reader went away. The signal itself stays ignored: a connection that berthd closes would raise it, too.
  process.stdout.on('error', () => controller.abort('SIGPIPE'));
  return controller.signal;
}

/** @returns whether all was shown, and nothing is left */
async function show(out: Console, signal: AbortSignal): Promise<boolean> {
  const berthd = await Berthd.prepare({ network: false, detached: true });
  const tour = new Tour(berthd, out, signal);
  try {
    await writeFile(path.join(berthd.dir, 'net.d/10-demo.conflist'), network(berthd.bridge, berthd.dir));
    for (const [heading, step] of steps(tour)) {
      signal.throwIfAborted();
      out.heading(heading);
      await step();
    }
    signal.throwIfAborted();
  } catch (e: unknown) {
    if (!signal.aborted) {
      process.stderr.write(`\ndemo: failed: ${messageOf(e)}\n`);
      const log = await complaints(berthd);
      if (log.length > 0) process.stderr.write(`demo: berthd's last complaints:\n${bullets(log)}`);
    }
    const left = await berthd.close();
    if (left.length === 0) out.line('\nEverything has been taken down; nothing is left behind.');
    else process.stderr.write(`demo: had to be taken down by force:\n${bullets(left)}`);
    return false;
  }
  out.heading('Stop berthd, and see that nothing is left behind');
  out.command(`kill ${berthd.pid}; ip link delete ${berthd.bridge}; rm -r ${berthd.dir}`);
  const left = [...(await berthd.close()), ...(await tour.showNothingLeft())];
  if (left.length > 0) process.stderr.write(`demo: left behind:\n${bullets(left)}`);
  return left.length === 0;
}

/** One line each; command lines of processes may be many lines long. */
function bullets(lines: readonly string[]): string {
  return lines.map((line) => `  - ${line.replaceAll(/\s+/g, ' ').slice(0, LONGEST_LINE)}\n`).join('');
}

/** What berthd wrote of warnings and worse, or to stderr when it could not start. */
async function complaints(berthd: Berthd): Promise<string[]> {
  const lines = (await berthd.log()).split('\n').filter((line) => line !== '');
  return lines.filter((line) => !/^\{"level":"(trace|debug|info)"/.test(line)).slice(-5);
}

function steps(tour: Tour): [string, () => Promise<void>][] {
  return [
    ['Start berthd, with a socket, data and network of its own', () => tour.startDaemon()],
    ["Make an image of Debian's busybox", () => tour.makeImage()],
    ['Run a pod of two containers from a Kubernetes YAML file', () => tour.runPod()],
    ["The pod's IP address", () => tour.showAddress()],
    ['Both containers are in the same network, UTS and IPC namespaces', () => tour.showNamespaces()],
    ['One container answers the other over localhost', () => tour.showLocalhost()],
    ['Their logs', () => tour.showLogs()],
    ['Their CPU time and memory, from the files of their cgroups', () => tour.showResources()],
    ['Stop and remove the pod and the image', () => tour.removePod()],
  ];
}

/**
 * A CNI configuration of a bridge that has no address on the host: its subnet clashes with no other, and
 * neither the host's routes and iptables nor its ip_forward are touched, which an address would switch on.
 */
function network(bridge: string, dir: string): string {
  const ipam = {
    type: 'host-local',
    dataDir: path.join(dir, 'ipam'),
    ranges: [[{ subnet: '10.10.0.0/24' }]],
  };
  const plugins = [{ type: 'bridge', bridge, ipam }];
  return JSON.stringify({ cniVersion: '1.0.0', name: 'demo', plugins }, null, 2);
}
