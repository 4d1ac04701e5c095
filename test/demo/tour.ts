import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { z } from 'zod';
import type { Berthd } from '../support/berthd.ts';
import { busyboxArchive } from '../support/busybox.ts';
import { leftovers } from '../support/leaks.ts';
import { type Census, COUNTED, Counter } from './census.ts';
import { readCgroupFiles } from './cgroup-files.ts';
import { CommandError, runCommand } from './command.ts';
import type { Console } from './console.ts';
import { compareNamespaces, KINDS } from './namespaces.ts';

const BERTH = path.resolve(import.meta.dirname, '../../bin/berth');
/** As pod.yaml calls it. */
const IMAGE = 'localhost/busybox:1';
const POD_YAML = path.join(import.meta.dirname, 'pod.yaml');
const CONTAINERS = ['web', 'client'] as const;
const WAIT_MS = 60_000;

const podInspection = z.object({ status: z.object({ network: z.object({ ip: z.string().min(1) }) }) });
const containerInspection = z.object({
  info: z.object({ info: z.object({ pid: z.int().positive(), cgroup: z.string().min(2) }) }),
});

/** Something that the demo was to show is not so. */
export class DemoError extends Error {}

/**
 * What the demo shows, step by step, on a daemon that runs. Each step is a method; they are called in order.
 * Nothing is cleaned up after a failure: the caller does that.
 */
export class Tour {
  readonly #berthd: Berthd;
  readonly #out: Console;
  readonly #signal: AbortSignal;
  readonly #counter: Counter;
  #cgroups = new Map<string, string>();
  #running: Census | undefined;

  constructor(berthd: Berthd, out: Console, signal: AbortSignal) {
    this.#berthd = berthd;
    this.#out = out;
    this.#signal = signal;
    this.#counter = new Counter(berthd);
  }

  async startDaemon(): Promise<void> {
    const { configFile, endpoint } = this.#berthd;
    this.#out.command(`bin/berthd --config ${configFile} &`);
    await this.#berthd.start();
    this.#out.command(`export BERTH_ENDPOINT=${endpoint} PATH=$PWD/bin:$PATH`);
    await this.#berth('info');
  }

  async makeImage(): Promise<void> {
    const archive = path.join(this.#berthd.dir, 'busybox.tar');
    await writeFile(archive, await busyboxArchive(IMAGE, ['sh']));
    await this.#berth('import', archive);
    await this.#berth('images');
  }

  async runPod(): Promise<void> {
    const { dir, cgroupParent } = this.#berthd;
    const file = path.relative(process.cwd(), POD_YAML);
    await this.#berth('run', '--pods-dir', path.join(dir, 'pods'), '--cgroup-parent', cgroupParent, file);
    await this.#berth('pods');
    await this.#berth('ps');
  }

  async showAddress(): Promise<void> {
    const { ip } = podInspection.parse(await this.#inspect('demo', '"ip"')).status.network;
    const seen = await this.#berth('exec', 'demo/client', '--', 'ip', '-4', 'addr', 'show', 'eth0');
    if (!seen.includes(` ${ip}/`))
      throw new DemoError(`the container's eth0 does not have the address ${ip}`);
  }

  async showNamespaces(): Promise<void> {
    const pids: number[] = [];
    for (const name of CONTAINERS) {
      const { pid, cgroup } = containerInspection.parse(await this.#inspect(`demo/${name}`, '"pid": [0-9]'))
        .info.info;
      pids.push(pid);
      this.#cgroups.set(name, cgroup);
    }
    this.#out.command(`ls -l ${pids.map((pid) => `/proc/${pid}/ns`).join(' ')}    # as a table:`);
    const rows = await compareNamespaces(pids);
    this.#out.table(
      ['NAMESPACE', 'WEB', 'CLIENT', ''],
      rows.map(({ kind, ids, shared }) => [KINDS[kind], ...ids, shared ? 'the same' : 'each its own']),
    );
    for (const { kind, shared } of rows) {
      const expected = kind === 'net' || kind === 'uts' || kind === 'ipc';
      if (shared !== expected) {
        throw new DemoError(
          `the containers ${shared ? 'share' : 'do not share'} their ${KINDS[kind]} namespace`,
        );
      }
    }
    this.#running = await this.#counter.first(new Set(rows.flatMap(({ ids }) => ids)));
    // A count that sees nothing now would call every machine clean later.
    const unseen = Object.entries(this.#running).find(([, list]) => list.length === 0);
    if (unseen) throw new DemoError(`no ${unseen[0]} of the pod were found while it runs`);
  }

  async showLocalhost(): Promise<void> {
    await this.#until('client has answers', async () => (await this.#log('client')).includes('answer 3:'));
    const url = 'http://127.0.0.1:8080/';
    const answer = await this.#berth('exec', 'demo/client', '--', 'wget', '-q', '-O', '-', url);
    if (!answer.startsWith('Hello from web')) throw new DemoError(`web does not answer client at ${url}`);
  }

  async showLogs(): Promise<void> {
    for (const name of CONTAINERS) {
      const text = await this.#berth('logs', '--tail', '4', `demo/${name}`);
      if (text === '') throw new DemoError(`the log of ${name} is empty`);
    }
  }

  async showResources(): Promise<void> {
    for (const [name, cgroup] of this.#cgroups) {
      this.#out.text(`\n${name}:`);
      for (const file of await readCgroupFiles(cgroup)) {
        this.#out.command(file.command);
        this.#out.text(`${file.value.padEnd(24)} # ${file.meaning}`);
      }
    }
    await this.#berth('stats');
  }

  /** Takes all down by the commands that a person would use, and sees what the daemon left of the pod. */
  async removePod(): Promise<void> {
    await this.#berth('stop', 'demo');
    await this.#berth('ps', '--all');
    await this.#berth('rm', 'demo');
    await this.#berth('rmi', IMAGE);
    const left = await leftovers(this.#berthd);
    if (left.length > 0) throw new DemoError(`the pod left behind:\n  ${left.join('\n  ')}`);
  }

  /** Counts again after the daemon's end. @returns what is left, one line each */
  async showNothingLeft(): Promise<string[]> {
    const now = await this.#counter.last();
    const before = this.#running;
    const kinds = Object.entries(COUNTED) as [keyof Census, string][];
    this.#out.table(
      ['OF THE DEMO', 'WHILE IT RAN', 'NOW'],
      kinds.map(([kind, title]) => [title, String(before?.[kind].length), String(now[kind].length)]),
    );
    return kinds.flatMap(([kind, title]) => now[kind].map((line) => `${title}: ${line}`));
  }

  /** Shows a command of berth and what it prints. @returns all of that */
  async #berth(...args: string[]): Promise<string> {
    const shown = args.map((arg) => (/^[\w./:=@-]+$/.test(arg) ? arg : `'${arg}'`)).join(' ');
    this.#out.command(`berth ${shown}`);
    const { stdout, stderr } = await this.#run(args);
    this.#out.text(stdout);
    this.#out.text(stderr);
    return stdout + stderr;
  }

  async #run(args: readonly string[]): Promise<{ stdout: string; stderr: string }> {
    const env = { BERTH_ENDPOINT: this.#berthd.endpoint };
    try {
      return await runCommand(BERTH, args, env, this.#signal);
    } catch (e: unknown) {
      if (!(e instanceof CommandError)) throw e;
      throw new DemoError(`berth ${args[0]} ${e.message}`, { cause: e });
    }
  }

  /** Shows the lines of `berth inspect` that match a pattern. @returns all of it */
  async #inspect(name: string, pattern: string): Promise<unknown> {
    this.#out.command(`berth inspect ${name} | grep '${pattern}'`);
    const { stdout } = await this.#run(['inspect', name]);
    const lines = stdout.split('\n').filter((line) => new RegExp(pattern).test(line));
    this.#out.text(lines.map((line) => line.trim()).join('\n'));
    return JSON.parse(stdout);
  }

  async #log(name: string): Promise<string> {
    return (await this.#run(['logs', `demo/${name}`])).stdout;
  }

  async #until(what: string, check: () => Promise<boolean>): Promise<void> {
    for (const since = Date.now(); !(await check()); await delay(50, undefined, { signal: this.#signal })) {
      if (Date.now() - since > WAIT_MS) throw new DemoError(`waited ${WAIT_MS / 1000} s in vain: ${what}`);
    }
  }
}
