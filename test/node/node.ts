import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { cp, mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import { Client } from '../../src/cli/client.ts';
import { cached, nodeImage } from './image.ts';

const exec = promisify(execFile);
const CHECKOUT = path.resolve(import.meta.dirname, '../..');

/** What of the checkout the guest sees in /usr/local/lib/berth; node_modules comes on a disk of its own. */
const CODE = [
  'bin',
  'dist',
  'src',
  'proto',
  'cri',
  'cgroups',
  'systemd',
  'test',
  'package.json',
  'vitest.config.ts',
  'tsconfig.json',
];

/** Until the agent speaks: 15 s under emulation on two idle cores, a minute and a half on busy ones. */
const BOOT_MS = 180_000;
/** No guest lives longer, whatever becomes of the test, seconds. */
const LIFE_S = 1_800;
const RUN_MS = 120_000;
/** Where the guest listens for CRI; see guest/berth-test-cri.socket. */
const GUEST_CRI_PORT = 1000;

/** What a command in the guest came to. */
export interface RunResult {
  /** 124 when the time was up. */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface NodeOptions {
  /** MiB. */
  readonly memory?: number;
  /** More for the kernel's command line, such as `systemd.unified_cgroup_hierarchy=0` for cgroup v1. */
  readonly kernelArgs?: string;
}

/**
 * A machine of the test's own under QEMU: Debian 12 with systemd and cgroup v2, a copy of this checkout at
 * /usr/local/lib/berth, no network but the way in for CRI calls. Its disk forgets everything at the end.
 */
export class Node {
  readonly dir: string;
  /** Unix socket at which the guest's berthd answers. */
  readonly endpoint: string;
  readonly client: Client;
  readonly #qemu: ChildProcess;
  readonly #agent: Socket;
  readonly #proxy: Server;
  readonly #waiting = new Map<string, (result: RunResult) => void>();
  #lastId = 0;

  private constructor(dir: string, qemu: ChildProcess, agent: Socket, proxy: Server) {
    this.dir = dir;
    this.endpoint = `unix://${dir}/berth.sock`;
    this.client = new Client({ endpoint: this.endpoint, signal: new AbortController().signal });
    this.#qemu = qemu;
    this.#agent = agent;
    this.#proxy = proxy;
  }

  /**
   * Builds the image if there is none yet, and boots it.
   *
   * @throws Error with the end of the console when the guest does not come up
   */
  static async boot(options: NodeOptions = {}): Promise<Node> {
    const [image, modules] = await Promise.all([nodeImage(), modulesDisk()]);
    const dir = await mkdtemp(path.join(tmpdir(), 'berth-node-'));
    const code = await codeDisk(dir);
    const port = await freePort();
    const agents = createServer().listen(path.join(dir, 'agent.sock'));
    await once(agents, 'listening');
    const args = [
      ...['-machine', 'q35', ...accelerator(), '-smp', '2', '-m', `${options.memory ?? 1536}`],
      ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
      ...['-kernel', image.kernel, '-initrd', image.initrd],
      ...[
        '-append',
        `console=ttyS0 quiet panic=-1 net.ifnames=0 mitigations=off ${options.kernelArgs ?? ''}`,
      ],
      ...['-serial', `file:${path.join(dir, 'console.log')}`],
      ...disk(image.rootDisk, 'snapshot=on,cache=unsafe'),
      ...disk(code, 'snapshot=on'),
      ...disk(modules, 'snapshot=on,cache=unsafe'),
      ...['-device', 'virtio-rng-pci', '-device', 'virtio-serial-pci'],
      ...['-chardev', `socket,id=agent,path=${path.join(dir, 'agent.sock')}`],
      ...['-device', 'virtserialport,chardev=agent,name=berth.agent'],
      ...['-netdev', `user,id=in,restrict=on,hostfwd=tcp:127.0.0.1:${port}-10.0.2.15:${GUEST_CRI_PORT}`],
      // Without the boot ROM, which is in a package of its own.
      ...['-device', 'virtio-net-pci,netdev=in,romfile='],
    ];
    // Should this process be killed, the agent's end of the port closes and the guest powers off; and
    // there is an end to its time in any case.
    const qemu = spawn('timeout', ['--kill-after=5', `${LIFE_S}`, 'qemu-system-x86_64', ...args], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let said = '';
    qemu.stderr?.on('data', (chunk) => (said += chunk));
    const proxy = forward(path.join(dir, 'berth.sock'), port);
    const giveUp = AbortSignal.timeout(BOOT_MS);
    try {
      const gone = once(qemu, 'exit', { signal: giveUp }).then(() =>
        Promise.reject(new Error('QEMU has ended')),
      );
      gone.catch(() => {});
      const [agent] = (await Promise.race([once(agents, 'connection', { signal: giveUp }), gone])) as [
        Socket,
      ];
      agents.close();
      const node = new Node(dir, qemu, agent, proxy);
      await Promise.race([node.#listen(giveUp), gone]);
      return node;
    } catch (e: unknown) {
      const log = await readFile(path.join(dir, 'console.log'), 'utf8').catch(() => '');
      qemu.kill();
      proxy.close();
      agents.close();
      await rm(dir, { recursive: true, force: true });
      throw new Error(`the node did not boot\n${said}\n${log.slice(-4000)}`, { cause: e });
    }
  }

  /** Runs a shell script (bash) in the guest. Several may run side by side. */
  async run(script: string, { timeoutMs = RUN_MS }: { timeoutMs?: number } = {}): Promise<RunResult> {
    const id = `${++this.#lastId}`;
    const { promise, resolve, reject } = Promise.withResolvers<RunResult>();
    // The guest has a clock of its own that ends the script; this one is for a guest that hangs.
    const timer = setTimeout(() => {
      this.#waiting.delete(id);
      reject(new Error(`the node did not answer: ${script.slice(0, 200)}`));
    }, timeoutMs + 20_000);
    this.#waiting.set(id, resolve);
    this.#agent.write(`${id} ${timeoutMs / 1000} ${Buffer.from(script).toString('base64')}\n`);
    return promise.finally(() => clearTimeout(timer));
  }

  /** Like {@link run}, for a script that is to succeed. @returns its stdout without the last newline */
  async sh(script: string, options: { timeoutMs?: number } = {}): Promise<string> {
    const { code, stdout, stderr } = await this.run(script, options);
    if (code !== 0)
      throw new Error(`exit code ${code} in the node: ${script.slice(0, 500)}\n${stdout}${stderr}`);
    return stdout.replace(/\n$/, '');
  }

  /** Writes a file in the guest; its folder must exist. */
  async write(file: string, content: string): Promise<void> {
    await this.sh(`base64 -d >'${file}' <<'END'\n${Buffer.from(content).toString('base64')}\nEND`);
  }

  /** All that the guest's kernel and systemd have written to the serial console. */
  async console(): Promise<string> {
    return readFile(path.join(this.dir, 'console.log'), 'utf8').catch(() => '');
  }

  /** Ends the machine as a power cut does. Repeatable. */
  async close(): Promise<void> {
    this.client.close();
    this.#proxy.close();
    this.#agent.destroy();
    if (this.#qemu.exitCode === null && this.#qemu.signalCode === null) {
      this.#qemu.kill();
      await once(this.#qemu, 'exit');
    }
    await rm(this.dir, { recursive: true, force: true });
  }

  /** Reads the agent's lines from now on; resolves when it has said that it is ready. */
  async #listen(signal: AbortSignal): Promise<void> {
    const lines = createInterface({ input: this.#agent });
    this.#agent.on('error', () => {});
    const ready = once(lines, 'line', { signal });
    lines.on('line', (line) => {
      const [id = '', code, stdout = '', stderr = ''] = line.split(' ');
      const text = (base64: string) => Buffer.from(base64, 'base64').toString();
      this.#waiting.get(id)?.({ code: Number(code), stdout: text(stdout), stderr: text(stderr) });
      this.#waiting.delete(id);
    });
    await ready;
  }
}

function disk(file: string, options: string): string[] {
  return ['-drive', `file=${file},format=raw,if=virtio,${options}`];
}

/**
 * Emulation, unless KVM is asked for: some machines have a /dev/kvm that opens and then hangs or aborts, so
 * that its being there says nothing.
 */
function accelerator(): string[] {
  return process.env.BERTH_TEST_KVM === '1'
    ? ['-accel', 'kvm', '-cpu', 'host']
    : ['-accel', 'tcg,thread=multi', '-cpu', 'max'];
}

/** node_modules, made once for each lock file. */
async function modulesDisk(): Promise<string> {
  const lock = await readFile(path.join(CHECKOUT, 'package-lock.json'));
  const key = createHash('sha256').update(lock).digest('hex').slice(0, 16);
  const dir = await cached('modules', key, (made) =>
    ext4(path.join(made, 'modules.ext4'), path.join(CHECKOUT, 'node_modules'), 'berth-modules'),
  );
  return path.join(dir, 'modules.ext4');
}

async function codeDisk(dir: string): Promise<string> {
  const tree = path.join(dir, 'code');
  for (const name of CODE) {
    await cp(path.join(CHECKOUT, name), path.join(tree, name), { recursive: true, preserveTimestamps: true });
  }
  await mkdir(path.join(tree, 'node_modules'));
  const file = path.join(dir, 'code.ext4');
  await ext4(file, tree, 'berth-code');
  await rm(tree, { recursive: true });
  return file;
}

async function ext4(file: string, tree: string, label: string): Promise<void> {
  const { stdout } = await exec('du', ['-sm', '--apparent-size', tree]);
  // Blocks that are not full, inodes and tables take their share.
  const megabytes = Math.ceil(Number.parseInt(stdout, 10) * 1.3) + 32;
  await exec('mke2fs', [
    '-q',
    '-t',
    'ext4',
    '-O',
    '^has_journal',
    '-L',
    label,
    '-d',
    tree,
    file,
    `${megabytes}M`,
  ]);
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

/** A unix socket whose connections go to a local port: gRPC clients here know unix sockets only. */
function forward(socket: string, port: number): Server {
  const server = createServer((from) => {
    const to = connect(port, '127.0.0.1');
    for (const [a, b] of [
      [from, to],
      [to, from],
    ] as const) {
      a.pipe(b);
      a.on('error', () => b.destroy());
      a.on('close', () => b.destroy());
    }
  });
  return server.listen(socket);
}
