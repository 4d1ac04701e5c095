import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs, promisify } from 'node:util';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { Client } from '../../src/cli/client.ts';
import { Berthd } from '../support/berthd.ts';
import { type BuiltImage, type BuiltLayer, buildImage, LAYER_TYPE, tar } from '../support/images.ts';
import { type Registry, startRegistry } from '../support/registry.ts';
import { accepting } from '../support/socket.ts';

/**
 * `node test/bench/images.ts [--rounds 5] [--small] [--only PART-OF-A-NAME]`: how long PullImage takes to a container-ready image, of
 * berthd and of Debian's containerd, from one docker-registry on loopback, turn by turn. With `unpigz` in
 * PATH containerd uses it. The images' content is this machine's /usr.
 */

const exec = promisify(execFile);
const MiB = 2 ** 20;
const START_MS = 20_000;
/** Both remove an image's files in the background. */
const SETTLE_MS = 500;

interface Daemon {
  name: string;
  client: Client;
  pid: number;
  close(): Promise<void>;
}

async function berth(): Promise<Daemon> {
  const daemon = await Berthd.start({ logLevel: 'info', network: false });
  const close = async (): Promise<void> => {
    const left = await daemon.close();
    if (left.length > 0) console.error(left.join('\n'));
  };
  return { name: 'berth', client: daemon.client, pid: daemon.pid, close };
}

/** In the host's namespaces, as it only pulls. */
async function containerd(): Promise<Daemon> {
  const dir = await mkdtemp(path.join(tmpdir(), 'berth-bench-containerd-'));
  const socket = path.join(dir, 'containerd.sock');
  await writeFile(
    path.join(dir, 'config.toml'),
    `version = 2\nroot = "${dir}/root"\nstate = "${dir}/state"\n[grpc]\naddress = "${socket}"\n`,
  );
  const log = openSync(path.join(dir, 'log'), 'a');
  const child: ChildProcess = spawn('containerd', ['-c', path.join(dir, 'config.toml')], {
    stdio: ['ignore', log, log],
  });
  closeSync(log);
  const client = new Client({ endpoint: `unix://${socket}`, signal: new AbortController().signal });
  const close = async (): Promise<void> => {
    client.close();
    if (child.exitCode === null && child.signalCode === null) {
      child.kill();
      await once(child, 'exit');
    }
    await rm(dir, { recursive: true, force: true, maxRetries: 10, retryDelay: 200 });
  };
  await accepting(socket, child, START_MS);
  for (const since = Date.now(); Date.now() - since < START_MS; await delay(100)) {
    if (await client.runtime('Version', {}).catch(() => undefined)) break;
  }
  return { name: 'containerd', client, pid: child.pid ?? 0, close };
}

/** Archives of files of /usr, each of about so many bytes. */
async function layersOfUsr(sizes: readonly number[]): Promise<Buffer[]> {
  const { stdout } = await exec(
    'find',
    ['/usr', '-xdev', '-type', 'f', '-size', '+64k', '-size', '-8M', '-printf', '%s %p\\0'],
    {
      maxBuffer: 256 * MiB,
    },
  );
  const files = stdout.split('\0').filter((line) => line !== '');
  const dir = await mkdtemp(path.join(tmpdir(), 'berth-bench-layers-'));
  try {
    const archives: Buffer[] = [];
    for (const size of sizes) {
      const names: string[] = [];
      for (let sum = 0; sum < size && files.length > 0; ) {
        const [bytes = '', ...rest] = (files.shift() ?? '').split(' ');
        names.push(rest.join(' '));
        sum += Number(bytes);
      }
      const [list, archive] = [path.join(dir, 'list'), path.join(dir, 'tar')];
      await writeFile(list, names.join('\0'));
      await exec('tar', ['-cf', archive, '-C', '/', '--null', '-T', list, '--hard-dereference']);
      archives.push(await readFile(archive));
    }
    return archives;
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

const gzip = (bytes: Buffer): BuiltLayer => ({
  tar: bytes,
  blob: gzipSync(bytes, { level: 6 }),
  mediaType: `${LAYER_TYPE}+gzip`,
});
const zstd = (bytes: Buffer): BuiltLayer => ({
  tar: bytes,
  blob: zstdCompressSync(bytes),
  mediaType: `${LAYER_TYPE}+zstd`,
});

async function smallFiles(count: number): Promise<Buffer> {
  return tar(
    Array.from({ length: count }, (_, i) => ({
      name: `srv/${Math.floor(i / 500)}/${i}.js`,
      content: `export const value = ${i};\n`.repeat(1 + (i % 40)),
    })),
  );
}

async function images(scale: number): Promise<[string, () => Promise<BuiltImage>][]> {
  const five = await layersOfUsr([60, 80, 80, 100, 100].map((size) => size * MiB * scale));
  const one = Buffer.concat([...five.slice(0, 2).map(withoutEnd), five[2] ?? Buffer.alloc(0)]);
  const count = 50_000 * scale;
  return [
    ['5 gzip layers', async () => buildImage(five.map(gzip))],
    ['5 zstd layers', async () => buildImage(five.map(zstd))],
    ['1 gzip layer', async () => buildImage([gzip(one)])],
    [`${count} small files`, async () => buildImage([gzip(await smallFiles(count))])],
  ];
}

/** Without the zero blocks at its end, so that another archive may follow. */
function withoutEnd(archive: Buffer): Buffer {
  let end = archive.length;
  while (end > 0 && archive.subarray(end - 512, end).every((byte) => byte === 0)) end -= 512;
  return archive.subarray(0, end);
}

async function pull({ client }: Daemon, image: string): Promise<number> {
  await exec('sync');
  const began = performance.now();
  const { image_ref } = await client.image('PullImage', { image: { image } }, { timeoutMs: 0 });
  const took = performance.now() - began;
  await client.image('RemoveImage', { image: { image: image_ref } });
  await delay(SETTLE_MS);
  return took;
}

/** Peak resident memory of a process so far, in MiB. */
async function peak(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? 0) / 1024;
}

/** CPU seconds of a process with all its ended children. */
async function cpu(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks), 0) / 100;
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

async function run(
  registry: Registry,
  daemons: readonly Daemon[],
  { rounds, scale, only }: { rounds: number; scale: number; only: string },
): Promise<void> {
  console.log('| image | MiB | berth | containerd | ratio | CPU berth | CPU containerd |');
  console.log('|---|---|---|---|---|---|---|');
  for (const [name, build] of await images(scale)) {
    if (!name.includes(only)) continue;
    const image = await build();
    const repository = name.replaceAll(' ', '-');
    await registry.push(repository, 'v1', image);
    const size = [...image.blobs.values()].reduce((sum, blob) => sum + blob.length, 0) / MiB;
    const taken = daemons.map((): number[] => []);
    const used = daemons.map(() => 0);
    // One before that does not count: files of programs are read, code is compiled.
    for (let round = -1; round < rounds; round++) {
      for (const [i, daemon] of daemons.entries()) {
        const before = await cpu(daemon.pid);
        const took = await pull(daemon, `${registry.host}/${repository}:v1`);
        if (round < 0) continue;
        taken[i]?.push(took);
        used[i] = (used[i] ?? 0) + ((await cpu(daemon.pid)) - before) / rounds;
      }
    }
    const [a = 0, b = 0] = taken.map(median);
    const [cpuA = 0, cpuB = 0] = used;
    console.log(
      `| ${name} | ${size.toFixed(0)} | ${a.toFixed(0)} ms | ${b.toFixed(0)} ms | ${(a / b).toFixed(2)} | ${cpuA.toFixed(1)} s | ${cpuB.toFixed(1)} s |`,
    );
  }
  for (const { name, pid } of daemons)
    console.log(`peak memory of ${name}: ${(await peak(pid)).toFixed(0)} MiB`);
}

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    small: { type: 'boolean', default: false },
    only: { type: 'string', default: '' },
  },
});
const closing: (() => Promise<unknown>)[] = [];
try {
  const registry = await startRegistry();
  closing.push(() => registry.stop());
  const daemons: Daemon[] = [];
  for (const start of [berth, containerd]) {
    const daemon = await start();
    daemons.push(daemon);
    closing.push(() => daemon.close());
  }
  await run(registry, daemons, {
    rounds: Number(values.rounds),
    scale: values.small ? 0.1 : 1,
    only: values.only,
  });
} finally {
  for (const close of closing.reverse()) await close();
}
