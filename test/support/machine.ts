import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';

const START_MS = 45_000;
/** Stays where it is, also below /tmp. */
const CHECKOUT = path.resolve(import.meta.dirname, '../..');

/**
 * Gives a namespace its own version of every directory that documents write to. Overlays, so that what the
 * host has installed is there; berth's own two are real file systems, for its overlays cannot stack on one. Its
 * first process reaps what daemons leave.
 */
const SET_UP = `
set -eu
dir=$1
for place in /etc /opt /usr/local /var/lib /run /root; do
  mkdir -p "$dir/upper$place" "$dir/work$place"
  mount -t overlay overlay -o "lowerdir=$place,upperdir=$dir/upper$place,workdir=$dir/work$place" "$place"
done
rm -rf /etc/berth /etc/cni /run/berth /var/lib/berth
mkdir -p /var/lib/berth /run/berth "$dir/lib" "$dir/tmp"
mount --bind "$dir/lib" /var/lib/berth
mount -t tmpfs tmpfs /run/berth
chmod 1777 "$dir/tmp"
exec 3>"$dir/ready"
case $2 in
  /tmp/*) mkdir -p "$dir$2" && mount --bind "$2" "$dir$2" ;;
esac
mount --rbind "$dir/tmp" /tmp
ip link set lo up
echo ready >&3
exec catatonit -P
`;

/** How a script ended, with what it wrote to stdout and stderr together, in order. */
export interface Outcome {
  code: number | null;
  output: string;
}

/**
 * A machine inside the machine: mounts, network and processes of its own, so that commands which name
 * /etc/berth, /usr/local or port 5000 mean just that and touch nothing of the host. Only control groups and
 * the checkout are the host's. All of it ends with `close`.
 */
export class Machine {
  readonly #dir: string;
  readonly #holder: ChildProcess;
  readonly #init: number;

  private constructor(dir: string, holder: ChildProcess, init: number) {
    this.#dir = dir;
    this.#holder = holder;
    this.#init = init;
  }

  /** @throws Error with what unshare(1) or mount(8) said */
  static async start(): Promise<Machine> {
    const dir = await mkdtemp(path.join(tmpdir(), 'berth-machine-'));
    await writeFile(path.join(dir, 'setup'), SET_UP);
    const flags = ['--mount', '--net', '--pid', '--fork', '--kill-child', '--mount-proc'];
    const holder = spawn('unshare', [...flags, 'bash', path.join(dir, 'setup'), dir, CHECKOUT], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    const said = holder.stderr === null ? Promise.resolve('') : text(holder.stderr);
    try {
      for (const since = Date.now(); Date.now() - since < START_MS; await delay(20)) {
        if (holder.exitCode !== null) break;
        const ready = await readFile(path.join(dir, 'ready'), 'utf8').catch(() => '');
        if (ready === '') continue;
        const children = await readFile(`/proc/${holder.pid}/task/${holder.pid}/children`, 'utf8');
        return new Machine(dir, holder, Number(children.trim()));
      }
      holder.kill('SIGKILL');
      throw new Error(`no machine: ${await said}`);
    } catch (e: unknown) {
      await rm(dir, { recursive: true, force: true });
      throw e;
    }
  }

  /** Where /tmp of the machine lies on the host. */
  get tmp(): string {
    return path.join(this.#dir, 'tmp');
  }

  /** Runs a bash script in it. The script's background processes live on until `close`. */
  async run(script: string, options: { cwd: string; timeoutMs?: number }): Promise<Outcome> {
    await writeFile(path.join(this.tmp, '.script'), script);
    const output = path.join(this.tmp, '.output');
    // In the shell, since nsenter(1) would take the host's directory of that name.
    const shell = 'cd "$0" && exec bash /tmp/.script > /tmp/.output 2>&1 < /dev/null';
    const places = ['-t', String(this.#init), '--mount', '--net', '--pid'];
    const child = spawn('nsenter', [...places, 'bash', '-c', shell, options.cwd], {
      stdio: 'ignore',
      timeout: options.timeoutMs ?? 50_000,
      killSignal: 'SIGKILL',
      env: {
        // The host's own path comes last: npm may be anywhere.
        PATH: `/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:${process.env.PATH}`,
        HOME: '/root',
        LANG: 'C.UTF-8',
      },
    });
    const [code] = (await once(child, 'exit')) as [number | null];
    return { code, output: await readFile(output, 'utf8').catch(() => '') };
  }

  /** Ends every process in it and removes its files. Repeatable. */
  async close(): Promise<void> {
    if (this.#holder.exitCode === null && this.#holder.signalCode === null) {
      const ended = once(this.#holder, 'exit');
      // Its child, the machine's first process, dies with it, and with that all others and the mounts.
      this.#holder.kill('SIGKILL');
      await ended;
    }
    await rm(this.#dir, { recursive: true, force: true, maxRetries: 50, retryDelay: 100 });
  }
}
