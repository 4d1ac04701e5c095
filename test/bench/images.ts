import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { type BuiltImage, type BuiltLayer, buildImage, LAYER_TYPE, tar } from '../support/images.ts';
import { type Registry, startRegistry } from '../support/registry.ts';
import type { Figure, Measure, Size, Values } from './measure.ts';
import type { Subject } from './subject.ts';

const exec = promisify(execFile);
const MiB = 2 ** 20;
/** Both remove an image's files in the background. */
const SETTLE_MS = 500;

/** What is pulled: its repository, and what the table calls it. */
const IMAGES = [
  ['gzip5', '5 gzip layers'],
  ['zstd5', '5 zstd layers'],
  ['gzip1', '1 gzip layer'],
  ['small', 'many small files'],
] as const;

/**
 * PullImage to a container-ready image, from a docker-registry on the loopback device of each daemon; all
 * registries have the same storage. The images' content is this machine's /usr.
 */
export class PullMeasure implements Measure {
  readonly name = 'pull';
  /** It has pushed the images; the others only serve them. */
  #origin: Promise<Registry> | undefined;
  readonly #registries = new Map<Subject, Promise<Registry>>();

  figures(): Figure[] {
    return [
      ...IMAGES.flatMap(([key, title]): Figure[] => [
        { key, title: `PullImage, ${title}`, unit: 'ms', bar: { atMost: 0.8 } },
        { key: `${key}Cpu`, title: '  CPU, daemon and helpers', unit: 'ms' },
      ]),
      { key: 'pullPeak', title: '  most memory of the daemon (RSS)', unit: 'MiB' },
      { key: 'pullDelay', title: '  longest Version call meanwhile', unit: 'ms' },
    ];
  }

  async run(subject: Subject, size: Size): Promise<Values> {
    this.#origin ??= push(size.imageScale);
    const { storage } = await this.#origin;
    const isFirst = !this.#registries.has(subject);
    const netns = `/proc/${subject.pid}/ns/net`;
    const registry = this.#registries.get(subject) ?? startRegistry({ storage, netns });
    this.#registries.set(subject, registry);
    const { host } = await registry;
    // Files of programs are read, code is compiled.
    if (isFirst) for (const [key] of IMAGES) await pull(subject, `${host}/${key}:v1`);
    // proc(5): 5 resets the peak.
    await writeFile(`/proc/${subject.pid}/clear_refs`, '5');
    const values: Values = { pullDelay: 0 };
    for (const [key] of IMAGES) {
      const cpu = await subject.account.cpuNs();
      const { took, delayed } = await pull(subject, `${host}/${key}:v1`);
      values[key] = took;
      values[`${key}Cpu`] = Number((await subject.account.cpuNs()) - cpu) / 1e6;
      values.pullDelay = Math.max(values.pullDelay ?? 0, delayed);
    }
    return { ...values, pullPeak: await peak(subject.pid) };
  }

  /** Ends the registries. */
  async close(): Promise<void> {
    for (const registry of this.#registries.values()) await (await registry).stop();
    await (await this.#origin)?.stop();
  }
}

/** @returns milliseconds of the pull, and of the longest call that waited for its answer meanwhile */
async function pull({ client }: Subject, image: string): Promise<{ took: number; delayed: number }> {
  await exec('sync');
  const began = performance.now();
  const pulling = client.image('PullImage', { image: { image } }, { timeoutMs: 0 }).finally(() => {
    isOver = true;
  });
  let isOver = false;
  let delayed = 0;
  const watching = (async (): Promise<void> => {
    while (!isOver) {
      const asked = performance.now();
      await client.runtime('Version', {});
      delayed = Math.max(delayed, performance.now() - asked);
      await delay(5);
    }
  })();
  const { image_ref } = await pulling;
  const took = performance.now() - began;
  await watching;
  await client.image('RemoveImage', { image: { image: image_ref } });
  await delay(SETTLE_MS);
  return { took, delayed };
}

/** Peak resident memory of a process since it was reset, in MiB. */
async function peak(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? Number.NaN) / 1024;
}

/** A registry that has the images. */
async function push(scale: number): Promise<Registry> {
  const registry = await startRegistry();
  try {
    for await (const [key, image] of images(scale)) await registry.push(key, 'v1', image);
    return registry;
  } catch (e: unknown) {
    await registry.stop();
    throw e;
  }
}

async function* images(scale: number): AsyncGenerator<[(typeof IMAGES)[number][0], BuiltImage]> {
  const five = await layersOfUsr([60, 80, 80, 100, 100].map((size) => size * MiB * scale));
  yield ['gzip5', buildImage(five.map(gzip))];
  yield ['zstd5', buildImage(five.map(zstd))];
  yield [
    'gzip1',
    buildImage([gzip(Buffer.concat([...five.slice(0, 2).map(withoutEnd), ...five.slice(2, 3)]))]),
  ];
  yield ['small', buildImage([gzip(await smallFiles(50_000 * scale))])];
}

/** Archives of files of /usr, each of about so many bytes. */
async function layersOfUsr(sizes: readonly number[]): Promise<Buffer[]> {
  const { stdout } = await exec(
    'find',
    ['/usr', '-xdev', '-type', 'f', '-size', '+64k', '-size', '-8M', '-printf', '%s %p\\0'],
    { maxBuffer: 256 * MiB },
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

function gzip(bytes: Buffer): BuiltLayer {
  return { tar: bytes, blob: gzipSync(bytes, { level: 6 }), mediaType: `${LAYER_TYPE}+gzip` };
}

function zstd(bytes: Buffer): BuiltLayer {
  return { tar: bytes, blob: zstdCompressSync(bytes), mediaType: `${LAYER_TYPE}+zstd` };
}

function smallFiles(count: number): Promise<Buffer> {
  return tar(
    Array.from({ length: count }, (_, i) => ({
      name: `srv/${Math.floor(i / 500)}/${i}.js`,
      content: `export const value = ${i};\n`.repeat(1 + (i % 40)),
    })),
  );
}

/** Without the zero blocks at its end, so that another archive may follow. */
function withoutEnd(archive: Buffer): Buffer {
  let end = archive.length;
  while (end > 0 && archive.subarray(end - 512, end).every((byte) => byte === 0)) end -= 512;
  return archive.subarray(0, end);
}
