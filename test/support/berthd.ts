import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, realpath, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Client } from '../../src/cli/client.ts';
import { listMounts, unmount } from '../../src/sys/mount.ts';
import { BUSYBOX, busyboxArchive } from './busybox.ts';
import { writeBridgeNetwork } from './cni.ts';
import { killCgroup, removeCgroups, removeLink } from './host.ts';
import { endProcesses, leftovers } from './leaks.ts';
import { SHIM_HANDLER, SHIM_TABLES } from './shim.ts';
import { accepting } from './socket.ts';

/** Set to the shim handler's name it makes that handler the default of every test's berthd. */
const HANDLER_SWITCH = 'BERTH_TEST_HANDLER';
const PROGRAM = path.resolve(import.meta.dirname, '../../bin/berthd');
/** An emulated machine on two busy cores has taken more than 20 s. */
const START_MS = 45_000;

/** How a test's berthd differs from the usual. */
export interface BerthdOptions {
  /** TOML put before the tables: keys of the top level. */
  keys?: string;
  /** Default: debug, for the log of a failed test. */
  logLevel?: 'debug' | 'info';
  /** Where CNI plugins are; default: Debian's directory. */
  binDirs?: string[];
  /** TOML put at the end: whole tables. */
  tables?: string;
  /** Variables for the daemon beside the test's own. */
  env?: Record<string, string>;
  /** false: the CNI directory stays empty until the test writes into it. */
  network?: boolean;
  /** In a session of its own, so that Ctrl-C in the terminal does not reach it. */
  detached?: boolean;
}

/**
 * A berthd of the test's own: a socket, root, state, CNI bridge and cgroup that nothing else uses. It is the
 * built program, started as its own process in the host's namespaces, as in production.
 */
export class Berthd {
  /** A short name of its own, for links and cgroups. */
  readonly tag: string;
  readonly dir: string;
  readonly endpoint: string;
  readonly configFile: string;
  readonly bridge: string;
  /** Give it to RunPodSandbox, so that the pods' cgroups can be told from all others. */
  readonly cgroupParent: string;
  /** The daemon's CRI and Node services. */
  readonly client: Client;
  readonly #env: Record<string, string>;
  readonly #detached: boolean;
  #process: ChildProcess | undefined;

  private constructor(dir: string, tag: string, options: BerthdOptions) {
    this.dir = dir;
    this.tag = tag;
    this.endpoint = `unix://${dir}/berth.sock`;
    this.configFile = path.join(dir, 'config.toml');
    this.bridge = `bt${tag}`;
    this.cgroupParent = `/berth-${tag}`;
    this.client = new Client({ endpoint: this.endpoint, signal: new AbortController().signal });
    this.#env = options.env ?? {};
    this.#detached = options.detached ?? false;
  }

  /** Makes the directories and files, and starts the daemon. */
  static async start(options: BerthdOptions = {}): Promise<Berthd> {
    const berthd = await Berthd.prepare(options);
    try {
      await berthd.start();
    } catch (e: unknown) {
      await berthd.close();
      throw e;
    }
    return berthd;
  }

  /** The same without starting it. */
  static async prepare(options: BerthdOptions = {}): Promise<Berthd> {
    const tag = randomBytes(4).toString('hex');
    const dir = await mkdtemp(path.join(await realpath(tmpdir()), `berthd-${tag}-`));
    const berthd = new Berthd(dir, tag, options);
    await mkdir(path.join(dir, 'net.d'));
    await writeFile(berthd.configFile, berthd.#config(options));
    if (options.network !== false) await berthd.addNetwork();
    return berthd;
  }

  /** The daemon's process id. @throws Error when it does not run */
  get pid(): number {
    const pid = this.#process?.pid;
    if (pid === undefined) throw new Error('berthd does not run');
    return pid;
  }

  /** Starts the daemon (again) and waits until it answers. */
  async start(): Promise<void> {
    const log = openSync(path.join(this.dir, 'log'), 'a');
    this.#process = spawn(PROGRAM, ['--config', this.configFile], {
      stdio: ['ignore', log, log],
      env: { ...process.env, ...this.#env },
      detached: this.#detached,
    });
    closeSync(log);
    const child = this.#process;
    await accepting(this.endpoint.slice('unix://'.length), child, START_MS).catch(() => {});
    for (const since = Date.now(); Date.now() - since < START_MS; await delay(20)) {
      if (child.exitCode !== null || child.signalCode !== null) break;
      if (await this.#answers()) return;
    }
    throw new Error(`berthd does not answer:\n${(await this.log()).slice(-4000)}`);
  }

  /** False before the first start and once the daemon has ended, by itself or by `stop`. */
  get isRunning(): boolean {
    const child = this.#process;
    return child !== undefined && child.exitCode === null && child.signalCode === null;
  }

  /** Ends the daemon as systemd does, or as the OOM killer does; pods go on. */
  async stop(signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> {
    const child = this.#process;
    this.#process = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    child.kill(signal);
    await once(child, 'exit');
  }

  /** What the daemon logged since the first start. */
  log(): Promise<string> {
    return readFile(path.join(this.dir, 'log'), 'utf8').catch(() => '');
  }

  /** Imports the busybox image as `localhost/berth-test/busybox:1`. */
  async importBusybox(): Promise<void> {
    const archive = await busyboxArchive(BUSYBOX, ['sh']);
    await this.client.importImage(pieces(archive));
  }

  /** Writes the CNI configuration: a bridge of its own, addresses 10.x.y.0/24 out of the tag. */
  async addNetwork(): Promise<void> {
    const [x = 0, y = 0] = Buffer.from(this.tag, 'hex');
    await writeBridgeNetwork(path.join(this.dir, 'net.d', '10-test.conflist'), {
      name: `berth-${this.tag}`,
      bridge: this.bridge,
      leases: path.join(this.dir, 'ipam'),
      subnet: `10.${64 + (x % 128)}.${y}.0/24`,
    });
  }

  /**
   * Removes all pods through the daemon and says what is still there: processes, mounts, links, cgroups,
   * leases, files (an empty list is what tests expect). The daemon goes on.
   */
  async removeAllPods(): Promise<string[]> {
    const { items } = await this.client.runtime('ListPodSandbox', {});
    for (const { id } of items) {
      await this.client.runtime('StopPodSandbox', { pod_sandbox_id: id });
      await this.client.runtime('RemovePodSandbox', { pod_sandbox_id: id });
    }
    return leftovers(this);
  }

  /** Ends everything, also after a failure, and removes the directory. @returns what was left behind */
  async close(): Promise<string[]> {
    let left: string[] = [];
    if (this.#process?.exitCode === null && this.#process.signalCode === null) {
      left = await this.removeAllPods().catch((e: unknown) => [`removal: ${String(e)}`]);
    }
    await this.stop();
    this.client.close();
    // A daemon that died before it could remove its pods leaves their processes, and its helpers.
    left.push(...(await killCgroup(this.cgroupParent)), ...(await endProcesses(this)));
    for (const mount of listMounts(this.dir).reverse()) {
      left.push(`mount after the end: ${mount.mountpoint}`);
      unmount(mount.mountpoint, { lazy: true });
    }
    await removeLink(this.bridge);
    left.push(...(await removeCgroups(this.cgroupParent)));
    await rm(this.dir, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
    return left;
  }

  async #answers(): Promise<boolean> {
    return this.client.runtime('Version', {}, { timeoutMs: 5_000 }).then(
      () => true,
      () => false,
    );
  }

  #config({ keys = '', tables = '', logLevel = 'debug', binDirs = ['/usr/lib/cni'] }: BerthdOptions): string {
    if (process.env[HANDLER_SWITCH] === SHIM_HANDLER && !tables.includes('[runtimes.')) {
      keys += `default_runtime = "${SHIM_HANDLER}"`;
      tables += SHIM_TABLES;
    }
    return `listen = "${this.endpoint}"
root = "${this.dir}/root"
state = "${this.dir}/state"
log_level = "${logLevel}"
# Also where systemd runs: it would keep the slices that stand for cgroupParent.
cgroup_driver = "cgroupfs"
${keys}
[network]
conf_dir = "${this.dir}/net.d"
bin_dirs = ${JSON.stringify(binDirs)}
[images]
registry_config_dir = "${this.dir}/certs.d"
${tables}
`;
  }
}

async function* pieces(archive: Buffer): AsyncGenerator<{ chunk: Buffer }> {
  for (let at = 0; at < archive.length; at += 1 << 20) yield { chunk: archive.subarray(at, at + (1 << 20)) };
}
