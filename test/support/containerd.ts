import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { access, mkdir, mkdtemp, readdir, readFile, rm, rmdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { isErrno } from '../../src/errors.ts';
import { BUSYBOX, busyboxArchive } from './busybox.ts';

const exec = promisify(execFile);

/** A containerd of the test's own: in its own network and mount namespace, with its own directories. */
export interface Containerd {
  endpoint: string;
  directory: string;
  /** A cgroup path for the test's pods, removed with the rest. */
  cgroupParent: string;
  /** Log of the daemon, for failures. */
  log(): Promise<string>;
  /** Ends it and removes all that it had. */
  close(): Promise<void>;
}

const PAUSE = 'localhost/berth-test/pause:1';
const START_MS = 20_000;

export async function startContainerd(): Promise<Containerd> {
  const directory = await mkdtemp('/tmp/berth-cli-');
  const at = (name: string) => path.join(directory, name);
  for (const name of ['root', 'state', 'cni']) await mkdir(at(name));
  await writeFile(at('cni/10-test.conflist'), JSON.stringify(cniConfig(directory)));
  await writeFile(at('config.toml'), config(at));
  const log = createWriteStream(at('containerd.log'));
  await once(log, 'open');
  const process = spawn(
    'unshare',
    [
      '--net',
      '--mount',
      '--propagation',
      'slave',
      'sh',
      '-c',
      'ip link set lo up && exec containerd -c "$0"',
      at('config.toml'),
    ],
    { stdio: ['ignore', log, log] },
  );
  const daemon: Containerd = {
    endpoint: `unix://${at('containerd.sock')}`,
    directory,
    cgroupParent: `/${path.basename(directory)}`,
    log: () => readFile(at('containerd.log'), 'utf8'),
    close: async () => {
      await end(process);
      log.close();
      await removeCgroups(path.basename(directory));
      await rm(directory, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
    },
  };
  try {
    await ready(process, at('containerd.sock'));
    await importImages(at);
    return daemon;
  } catch (e: unknown) {
    const text = await daemon.log();
    await daemon.close();
    throw new Error(`containerd does not start:\n${text.slice(-4000)}`, { cause: e });
  }
}

async function end(process: ChildProcess): Promise<void> {
  if (process.exitCode !== null || process.signalCode !== null) return;
  process.kill('SIGTERM');
  await once(process, 'exit');
}

/** One of the name in each hierarchy; on cgroup v2 there is but one. Only empty ones can be removed. */
async function removeCgroups(name: string): Promise<void> {
  const top = '/sys/fs/cgroup';
  const hierarchies = [top, ...(await readdir(top)).map((entry) => path.join(top, entry))];
  for (const hierarchy of hierarchies) {
    await rmdir(path.join(hierarchy, name)).catch((e: unknown) => {
      if (!isErrno(e, 'ENOENT', 'ENOTDIR')) throw e;
    });
  }
}

async function ready(process: ChildProcess, socket: string): Promise<void> {
  for (const start = Date.now(); Date.now() - start < START_MS; await delay(50)) {
    if (process.exitCode !== null) throw new Error(`containerd ended with ${process.exitCode}`);
    const ok = await access(socket)
      .then(() => exec('ctr', ['-a', socket, 'version'], { timeout: START_MS }))
      .then(() => true)
      .catch(() => false);
    if (ok) return;
  }
  throw new Error('containerd is not ready in time');
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
`;
}

function cniConfig(directory: string): object {
  const ipam = {
    type: 'host-local',
    dataDir: path.join(directory, 'ipam'),
    ranges: [[{ subnet: '10.231.7.0/24' }]],
    routes: [{ dst: '0.0.0.0/0' }],
  };
  return {
    cniVersion: '0.4.0',
    name: 'test',
    plugins: [{ type: 'bridge', bridge: 'br0', isGateway: true, ipam }],
  };
}

async function importImages(at: (name: string) => string): Promise<void> {
  const images: [string, string[]][] = [
    [BUSYBOX, ['sh']],
    [PAUSE, ['sleep', '2147483647']],
  ];
  for (const [name, command] of images) {
    await writeFile(at('image.tar'), await busyboxArchive(name, command));
    await exec('ctr', ['-a', at('containerd.sock'), '-n', 'k8s.io', 'images', 'import', at('image.tar')]);
  }
}
