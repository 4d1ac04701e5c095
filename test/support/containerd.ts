import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { Client } from '../../src/cli/client.ts';
import { BUSYBOX, busyboxArchive } from './busybox.ts';
import { writeBridgeNetwork } from './cni.ts';
import { commandLines, removeCgroups } from './host.ts';
import { until } from './pods.ts';
import { accepting } from './socket.ts';

const exec = promisify(execFile);

const PAUSE = 'localhost/berth-test/pause:1';
const START_MS = 45_000;
const SETTLE_MS = 20_000;
/** A virtual machine may boot meanwhile. */
const CTR_MS = 110_000;

export interface ContainerdOptions {
  /** In a session of its own, so that Ctrl-C in the terminal does not reach it. */
  detached?: boolean;
  /** Variables for the daemon, and so for its shims, beside the test's own. */
  env?: Record<string, string>;
}

/**
 * Debian's containerd with directories of its own, in a network and a mount namespace that a holder keeps
 * while the daemon is down: whatever pods leave behind goes with them.
 */
export class Containerd {
  readonly directory: string;
  readonly endpoint: string;
  /** A cgroup path for the test's pods, removed with the rest. */
  readonly cgroupParent: string;
  readonly #socket: string;
  readonly #detached: boolean;
  readonly #env: Record<string, string>;
  #holder: ChildProcess | undefined;
  #process: ChildProcess | undefined;

  private constructor(directory: string, options: ContainerdOptions) {
    this.directory = directory;
    this.#detached = options.detached ?? false;
    this.#env = options.env ?? {};
    this.#socket = path.join(directory, 'containerd.sock');
    this.endpoint = `unix://${this.#socket}`;
    this.cgroupParent = `/${path.basename(directory)}`;
  }

  /**
   * Makes the directories, starts the daemon and imports busybox, as image and as pause.
   *
   */
  static async start(options: ContainerdOptions = {}): Promise<Containerd> {
    const dir = await mkdtemp(path.join(tmpdir(), 'berth-containerd-'));
    const daemon = new Containerd(dir, options);
    try {
      await daemon.#prepare();
      await daemon.start();
      await daemon.#importImages();
      return daemon;
    } catch (e: unknown) {
      const text = await daemon.log();
      await daemon.close();
      throw new Error(`containerd does not start:\n${text.slice(-4000)}`, { cause: e });
    }
  }

  /** The daemon's process id. @throws Error when it does not run */
  get pid(): number {
    const pid = this.#process?.pid;
    if (pid === undefined) throw new Error('containerd does not run');
    return pid;
  }

  /** Starts the daemon (again) and waits until it answers. */
  async start(): Promise<void> {
    const log = openSync(path.join(this.directory, 'containerd.log'), 'a');
    const namespaces = ['net', 'mnt'].map((kind) => `/proc/${this.#holder?.pid}/ns/${kind}`);
    this.#process = spawn(
      'nsenter',
      [
        `--net=${namespaces[0]}`,
        `--mount=${namespaces[1]}`,
        'containerd',
        '-c',
        path.join(this.directory, 'config.toml'),
      ],
      { stdio: ['ignore', log, log], detached: this.#detached, env: { ...process.env, ...this.#env } },
    );
    closeSync(log);
    await accepting(this.#socket, this.#process, START_MS);
    const client = new Client({ endpoint: this.endpoint, signal: AbortSignal.timeout(START_MS) });
    try {
      // It refuses even this while it recovers.
      await until('containerd answers', () => client.runtime('Version', {}).catch(() => undefined), START_MS);
    } finally {
      client.close();
    }
  }

  /** Ends the daemon; pods go on. */
  async stop(signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> {
    const child = this.#process;
    this.#process = undefined;
    await end(child, signal);
  }

  /** Runs `ctr` in the namespace of the images; the code is told, not thrown. */
  async ctr(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
    const all = ['-a', this.#socket, '-n', 'k8s.io', ...args];
    return exec('ctr', all, { timeout: CTR_MS }).then(
      (said) => ({ code: 0, ...said }),
      ({ code, stdout, stderr }) => ({ code: Number(code), stdout, stderr }),
    );
  }

  /** What the daemon logged since the first start. */
  log(): Promise<string> {
    return readFile(path.join(this.directory, 'containerd.log'), 'utf8').catch(() => '');
  }

  /**
   * Ends it and removes all that it had; repeatable. The test removes its pods before.
   *
   * @returns what was left behind
   */
  async close(): Promise<string[]> {
    await this.stop();
    const left = await this.#killShims();
    await end(this.#holder, 'SIGKILL');
    left.push(...(await removeCgroups(this.cgroupParent)));
    await rm(this.directory, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
    return left;
  }

  /** Shims end by themselves a moment after their pods. */
  async #killShims(): Promise<string[]> {
    const shims = async () =>
      [...(await commandLines())].filter(([, line]) => line.includes(`${this.directory}/`));
    for (const since = Date.now(); (await shims()).length > 0 && Date.now() - since < SETTLE_MS; ) {
      await delay(50);
    }
    const left = await shims();
    for (const [pid] of left) process.kill(pid, 'SIGKILL');
    return left.map(([pid, line]) => `process ${pid}: ${line}`);
  }

  async #prepare(): Promise<void> {
    const at = (name: string) => path.join(this.directory, name);
    for (const name of ['root', 'state', 'cni']) await mkdir(at(name));
    await writeBridgeNetwork(at('cni/10-test.conflist'), {
      name: 'test',
      bridge: 'br0',
      leases: at('ipam'),
      subnet: '10.231.7.0/24',
    });
    await writeFile(at('config.toml'), config(at));
    this.#holder = spawn(
      'unshare',
      [
        ...['--net', '--mount', '--propagation', 'slave'],
        ...['sh', '-c', 'ip link set lo up && echo ready && exec sleep 2147483647'],
      ],
      { stdio: ['ignore', 'pipe', 'inherit'], detached: this.#detached },
    );
    if (this.#holder.stdout !== null) await once(this.#holder.stdout, 'data');
  }

  async #importImages(): Promise<void> {
    const archive = path.join(this.directory, 'image.tar');
    const images: [string, string[]][] = [
      [BUSYBOX, ['sh']],
      [PAUSE, ['sleep', '2147483647']],
    ];
    for (const [name, command] of images) {
      await writeFile(archive, await busyboxArchive(name, command));
      await exec('ctr', ['-a', this.#socket, '-n', 'k8s.io', 'images', 'import', archive]);
    }
  }
}

async function end(child: ChildProcess | undefined, signal: NodeJS.Signals): Promise<void> {
  if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
  child.kill(signal);
  await once(child, 'exit');
}

function config(at: (name: string) => string): string {
  return `version = 2
root = "${at('root')}"
state = "${at('state')}"
[grpc]
address = "${at('containerd.sock')}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "${PAUSE}"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "${at('cni')}"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.vm]
runtime_type = "io.containerd.berth-vm.v2"
`;
}
