import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Client } from '../src/cli/client.ts';

// Part of `npm run build`: lets the berthd that was built start once, in a folder of its own, so that the code that
// V8 makes of what a start calls is kept for all others. A berthd that cannot start here, because this is not root or
// a container without mounts, keeps what it came to.

const BERTHD = join(import.meta.dirname, '../bin/berthd');
const ANSWER_MS = 30_000;

const dir = await mkdtemp(join(tmpdir(), 'berthd-build-'));
try {
  await warmUp();
} finally {
  await rm(dir, { recursive: true });
}

async function warmUp(): Promise<void> {
  const socket = join(dir, 'berth.sock');
  await mkdir(join(dir, 'net.d'));
  // None of the programs that pods need is started.
  await writeFile(
    join(dir, 'config.toml'),
    `listen = "unix://${socket}"
root = "${dir}/root"
state = "${dir}/state"
log_level = "warn"
conmon = "${process.execPath}"
pause = "${process.execPath}"
[runtimes.runc]
path = "${process.execPath}"
[network]
conf_dir = "${dir}/net.d"
`,
  );
  const env = { ...process.env, BERTHD_KEEP_COMPILED: '1', NOTIFY_SOCKET: undefined };
  const args = ['--config', join(dir, 'config.toml')];
  const berthd = spawn(BERTHD, args, { env, stdio: ['ignore', 'ignore', 'ignore'] });
  const ended = once(berthd, 'exit');
  const late = AbortSignal.timeout(ANSWER_MS);
  const client = new Client({ endpoint: `unix://${socket}`, signal: late });
  let hasEnded = false;
  const end = ended.then(() => (hasEnded = true));
  try {
    while (!hasEnded && !late.aborted && !(await Promise.race([end, lists(client)]))) await delay(50);
  } finally {
    client.close();
    berthd.kill('SIGTERM');
    await ended;
  }
}

/** What the kubelet asks of a new berthd. */
async function lists(client: Client): Promise<boolean> {
  try {
    await client.runtime('Version', {});
    await client.runtime('Status', { verbose: false });
    await client.runtime('ListPodSandbox', {});
    await client.runtime('ListContainers', {});
    await client.image('ListImages', {});
    return true;
  } catch {
    return false;
  }
}
