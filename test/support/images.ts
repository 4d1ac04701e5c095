import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { type Header, pack } from 'tar-stream';
import { expect } from 'vitest';
import { Images, type ImagesOptions } from '../../src/image/images.ts';
import type { Image } from '../../src/image/types.ts';
import { Database } from '../../src/persist/database.ts';

/** An entry of a layer. */
export interface Entry extends Partial<Header> {
  name: string;
  content?: string | Buffer;
}

/** A tar archive of these entries. */
export async function tar(entries: readonly Entry[]): Promise<Buffer> {
  const archive = pack();
  for (const { content, ...header } of entries) {
    archive.entry({ mtime: new Date(1_600_000_000_000), ...header }, content ?? '');
  }
  archive.finalize();
  const chunks: Buffer[] = [];
  for await (const chunk of archive) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

export function sha256(bytes: Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

/** A layer as stored, and its tar; both the same when it is not compressed. */
export interface BuiltLayer {
  tar: Buffer;
  blob: Buffer;
  mediaType: string;
}

export const LAYER_TYPE = 'application/vnd.oci.image.layer.v1.tar';

export async function layer(
  entries: readonly Entry[],
  compress?: { with: (tar: Buffer) => Buffer; suffix: string },
): Promise<BuiltLayer> {
  const bytes = await tar(entries);
  if (compress === undefined) return { tar: bytes, blob: bytes, mediaType: LAYER_TYPE };
  return { tar: bytes, blob: compress.with(bytes), mediaType: `${LAYER_TYPE}+${compress.suffix}` };
}

/** All blobs of an image by digest, and its manifest's descriptor. */
export interface BuiltImage {
  id: string;
  blobs: Map<string, Buffer>;
  manifest: { mediaType: string; digest: string; size: number };
}

export interface BuildOptions {
  config?: object;
  architecture?: string;
  /** Instead of the layers' own. */
  diffIds?: string[];
  /** Members that replace the manifest's. */
  manifest?: object;
}

export function hostArchitecture(): string {
  return process.arch === 'x64' ? 'amd64' : process.arch;
}

export function buildImage(layers: readonly BuiltLayer[], options: BuildOptions = {}): BuiltImage {
  const blobs = new Map<string, Buffer>();
  const add = (bytes: Buffer, mediaType: string) => {
    blobs.set(sha256(bytes), bytes);
    return { mediaType, digest: sha256(bytes), size: bytes.length };
  };
  const config = add(
    Buffer.from(
      JSON.stringify({
        os: 'linux',
        architecture: options.architecture ?? hostArchitecture(),
        config: options.config ?? { Cmd: ['/hello'] },
        rootfs: { type: 'layers', diff_ids: options.diffIds ?? layers.map((l) => sha256(l.tar)) },
      }),
    ),
    'application/vnd.oci.image.config.v1+json',
  );
  const mediaType = 'application/vnd.oci.image.manifest.v1+json';
  const manifest = add(
    Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType,
        config,
        layers: layers.map((l) => add(l.blob, l.mediaType)),
        ...options.manifest,
      }),
    ),
    mediaType,
  );
  return { id: config.digest, blobs, manifest };
}

/** An OCI layout as tar with the named image. */
export function ociArchive(image: BuiltImage, annotations: Record<string, string>): Promise<Buffer> {
  const index = { schemaVersion: 2, manifests: [{ ...image.manifest, annotations }] };
  return tar([
    { name: 'oci-layout', content: '{"imageLayoutVersion":"1.0.0"}' },
    { name: 'index.json', content: JSON.stringify(index) },
    ...Array.from(image.blobs, ([digest, content]) => ({
      name: `blobs/${digest.replace(':', '/')}`,
      content,
    })),
  ]);
}

/** Bytes as a stream of small pieces, as a socket would give them. */
export async function* streamOf(bytes: Buffer, size = 10_000): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

/** Images of a fresh folder. */
export interface ImageFixture {
  images: Images;
  root: string;
  hostsDir: string;
  db: Database;
  /** Writes the hosts.toml of a registry. @returns the folder that it is in */
  hosts(host: string, toml: string): string;
  /** Everything below the folders of blobs, layers and half-done work. */
  leftovers(): string[];
  close(): Promise<void>;
}

export function imageFixture(options: Partial<ImagesOptions> = {}): ImageFixture {
  const base = mkdtempSync(join(tmpdir(), 'berth-images-'));
  const db = new Database(join(base, 'berth.db'));
  const root = join(base, 'images');
  const hostsDir = join(base, 'certs.d');
  const images = new Images({
    db,
    root,
    hostsDir,
    pinnedGlobs: [],
    logger: pino({ level: 'silent' }),
    ...options,
  });
  return {
    images,
    root,
    hostsDir,
    db,
    hosts: (host, toml) => {
      const dir = join(hostsDir, host);
      mkdirSync(dir, { recursive: true });
      writeFileSync(join(dir, 'hosts.toml'), toml);
      return dir;
    },
    leftovers: () =>
      ['content/sha256', 'content/sha512', 'ingest', 'layers'].flatMap((dir) =>
        readdirSync(join(root, dir)).map((name) => join(dir, name)),
      ),
    close: async () => {
      await images.close();
      db.close();
      rmSync(base, { recursive: true, force: true });
    },
  };
}

/** The name of what `importLayers` makes. */
export const NAME = { 'io.containerd.image.name': 'example.com/team/app:1' };

/** An image of these layers, base first, imported. */
export async function importLayers({ images }: ImageFixture, ...layers: Entry[][]): Promise<Image> {
  const built = buildImage(await Promise.all(layers.map((entries) => layer(entries))));
  const [image] = await images.importArchive(streamOf(await ociArchive(built, NAME)));
  if (image === undefined) throw new Error('no image');
  return image;
}

/** Waits until no image is there, nor anything that belonged to one, nor a process at work on one. */
export async function nothingLeft({ images, db, root, leftovers }: ImageFixture): Promise<void> {
  await expect.poll(() => leftovers()).toEqual([]);
  expect(images.list()).toEqual([]);
  for (const table of ['images', 'image_names', 'blobs', 'layers']) {
    expect(db.all(`SELECT * FROM ${table}`)).toEqual([]);
  }
  expect(spawnSync('pgrep', ['-f', root]).stdout.toString()).toBe('');
}

/** What is below a directory; each line: type, mode, owner, links, size, link target, and path; content by checksum. */
export function listing(root: string): string {
  const args = ['.', '-mindepth', '1'];
  const format = ['-printf', '%y %m %U:%G %l %p'];
  const found = [
    ['!', '-type', 'd', ...format, '-printf', ' %n %s\n'],
    // The size and times of directories are the file system's business and the mount's.
    ['-type', 'd', ...format, '-printf', '\n'],
    ['-type', 'f', ...format, '-printf', ' %T@ ', '-exec', 'sha256sum', '{}', ';'],
  ].map((test) => spawnSync('find', [...args, ...test], { cwd: root, maxBuffer: 1 << 26 }).stdout.toString());
  return found.join('').split('\n').sort().join('\n');
}
