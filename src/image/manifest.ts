import { createHash } from 'node:crypto';
import { z } from 'zod';
import { BerthError } from '../errors.ts';
import { formatPlatform, type Platform, platformMatch } from './platform.ts';
import { isDigest } from './reference.ts';
import type { ImageConfig } from './types.ts';

/** Bytes of an index, manifest or config; registries have the same bound for what is pushed. */
export const MAX_MANIFEST_BYTES = 4 * 1024 * 1024;
/** Values of one document. An image of 500 layers, with annotations and history, has some 5000. */
const MAX_VALUES = 20_000;
const [QUOTE, BACKSLASH, COMMA, BRACKET, BRACE] = [0x22, 0x5c, 0x2c, 0x5b, 0x7b];
/** Overlayfs takes at most 500 lower layers (fs/overlayfs/params.h, OVL_MAX_STACK). */
const MAX_LAYERS = 500;

export const MEDIA_TYPES = {
  ociIndex: 'application/vnd.oci.image.index.v1+json',
  ociManifest: 'application/vnd.oci.image.manifest.v1+json',
  /** With `+gzip` or `+zstd` behind it, or nothing. */
  ociLayer: 'application/vnd.oci.image.layer.v1.tar',
  ociConfig: 'application/vnd.oci.image.config.v1+json',
  dockerIndex: 'application/vnd.docker.distribution.manifest.list.v2+json',
  dockerManifest: 'application/vnd.docker.distribution.manifest.v2+json',
  dockerConfig: 'application/vnd.docker.container.image.v1+json',
} as const;

/** Annotations that name an entry of an index. */
export const NAME_ANNOTATIONS = {
  /** containerd's: the whole name. */
  containerd: 'io.containerd.image.name',
  /** OCI's (image-spec, annotations.md), which by most writers is only a tag. */
  oci: 'org.opencontainers.image.ref.name',
} as const;

const digest = z.string().refine(isDigest, 'must be a sha256 or sha512 digest');
const size = z.int().min(0);

const descriptorSchema = z.object({
  mediaType: z.string().default(''),
  digest,
  size,
  annotations: z.record(z.string(), z.string()).optional(),
});

/** What a document says of another blob (OCI image-spec, descriptor.md); `size` in bytes. */
export type Descriptor = z.infer<typeof descriptorSchema>;

const platformSchema = z.object({
  os: z.string(),
  architecture: z.string(),
  variant: z
    .string()
    .optional()
    .transform((v) => (v === '' ? undefined : v)),
});

const indexSchema = z.object({
  manifests: z
    .array(
      descriptorSchema.extend({
        platform: platformSchema.optional(),
        artifactType: z.string().optional(),
      }),
    )
    .max(1000),
});

const manifestSchema = z.object({
  config: descriptorSchema,
  layers: z.array(descriptorSchema).max(MAX_LAYERS),
  artifactType: z.string().optional(),
});

/** An image's manifest: its config and its layers, base first. */
export type Manifest = z.infer<typeof manifestSchema>;
/** An entry of an index. */
export type IndexEntry = z.infer<typeof indexSchema>['manifests'][number];

/** Absent and null are the same in the documents of many builders. */
const strings = z
  .array(z.string())
  .nullish()
  .transform((v) => v ?? []);
const text = z
  .string()
  .nullish()
  .transform((v) => v ?? '');

const configSchema = z.object({
  os: text,
  architecture: text,
  variant: text,
  rootfs: z.object({
    type: z.literal('layers'),
    diff_ids: z
      .array(digest)
      .max(MAX_LAYERS)
      .nullish()
      .transform((v) => v ?? []),
  }),
  config: z
    .object({
      User: text,
      Env: strings,
      // Old builders wrote a plain string here.
      Entrypoint: z.union([strings, z.string().transform((v) => [v])]),
      Cmd: z.union([strings, z.string().transform((v) => [v])]),
      WorkingDir: text,
      Volumes: z
        .record(z.string(), z.unknown())
        .nullish()
        .transform((v) => Object.keys(v ?? {})),
      Labels: z
        .record(z.string(), z.string())
        .nullish()
        .transform((v) => v ?? {}),
      StopSignal: text,
    })
    .nullish(),
});

/** A config blob as far as berth uses it. */
export interface ParsedConfig {
  config: ImageConfig;
  platform: Platform;
  /** Of the layers, base first. */
  diffIds: string[];
}

/** A manifest or index that is in the store. */
export interface StoredDocument {
  digest: string;
  bytes: Buffer;
  /** What it was announced as; empty when nobody said. */
  mediaType: string;
}

/** An index in an index in an index is as deep as anyone has a use for. */
const MAX_DEPTH = 3;

/** A manifest or an index, told apart. */
export type Document = { kind: 'manifest'; manifest: Manifest } | { kind: 'index'; entries: IndexEntry[] };

/** `sha256:<hex>` of bytes, or with the algorithm of `like`. */
export function digestOf(bytes: Uint8Array, like = 'sha256:'): string {
  const algorithm = like.slice(0, like.indexOf(':'));
  return `${algorithm}:${createHash(algorithm).update(bytes).digest('hex')}`;
}

/**
 * Reads a manifest or index by what it says of itself, or, where it says nothing (the field is optional in
 * OCI), by its members. `contentType` is the registry's word.
 *
 * @throws BerthError `invalid` for what is neither, or for kinds that are no images
 */
export function parseDocument(bytes: Uint8Array, what: string, contentType = ''): Document {
  const json = parseJson(bytes, what);
  const mediaType = 'mediaType' in json && typeof json.mediaType === 'string' ? json.mediaType : contentType;
  if ('schemaVersion' in json && json.schemaVersion === 1) {
    throw new BerthError(
      'invalid',
      `${what}: a Docker schema 1 image, which is obsolete; push it again with a current tool`,
    );
  }
  // Both sets of members: one reader would see an index, another a manifest (CVE-2021-41190).
  if ('manifests' in json && ('layers' in json || 'config' in json)) {
    throw new BerthError('invalid', `${what}: is both an index and a manifest`);
  }
  if (mediaType === MEDIA_TYPES.ociIndex || mediaType === MEDIA_TYPES.dockerIndex || 'manifests' in json) {
    return { kind: 'index', entries: check(indexSchema, json, what).manifests };
  }
  const manifest = check(manifestSchema, json, what);
  const type = manifest.config.mediaType;
  if (type !== '' && type !== MEDIA_TYPES.ociConfig && type !== MEDIA_TYPES.dockerConfig) {
    const name = manifest.artifactType ?? type;
    throw new BerthError(
      'invalid',
      `${what}: an artifact of type ${JSON.stringify(name.slice(0, 200))}, not a container image`,
    );
  }
  return { kind: 'manifest', manifest };
}

/** A manifest of anything, an artifact's too. @throws BerthError `invalid` for what is none */
export function parseManifest(bytes: Uint8Array, what: string): Manifest {
  return check(manifestSchema, parseJson(bytes, what), what);
}

/** @throws BerthError `invalid` when the config is not an image's, or its layers are not the manifest's. */
export function parseConfig(bytes: Uint8Array, what: string, layers: number): ParsedConfig {
  const parsed = check(configSchema, parseJson(bytes, what), what);
  const { diff_ids: diffIds } = parsed.rootfs;
  if (diffIds.length !== layers) {
    throw new BerthError(
      'invalid',
      `${what}: has ${diffIds.length} diff_ids, but the manifest ${layers} layers`,
    );
  }
  const { os, architecture, variant, config } = parsed;
  return {
    diffIds,
    platform: { os, architecture, ...(variant === '' ? {} : { variant }) },
    config: {
      os,
      architecture,
      user: config?.User ?? '',
      env: config?.Env ?? [],
      entrypoint: config?.Entrypoint ?? [],
      cmd: config?.Cmd ?? [],
      workingDir: config?.WorkingDir ?? '',
      volumes: config?.Volumes ?? [],
      labels: config?.Labels ?? {},
      stopSignal: config?.StopSignal ?? '',
    },
  };
}

/**
 * The entry of an index that runs best here. Entries without a platform count only when there is no
 * other; those of attestations (`unknown/unknown`) never match.
 *
 * @throws BerthError `notFound` that lists what there is
 */
export function choosePlatform(entries: readonly IndexEntry[], wanted: Platform, what: string): IndexEntry {
  let best: { entry: IndexEntry; match: number } | undefined;
  for (const entry of entries) {
    const match = entry.platform === undefined ? 0 : platformMatch(toPlatform(entry.platform), wanted);
    if (match !== undefined && (best === undefined || match > best.match)) best = { entry, match };
  }
  if (best !== undefined) return best.entry;
  const offered = entries.map((e) => (e.platform ? formatPlatform(toPlatform(e.platform)) : 'no platform'));
  throw new BerthError(
    'notFound',
    `${what}: no image for ${formatPlatform(wanted)}; there are ${offered.slice(0, 20).join(', ') || 'none'}`,
  );
}

/**
 * The manifest for a platform that a document means, through indexes. `get` has the documents of their entries.
 *
 * @throws BerthError as `parseDocument` and `choosePlatform`
 */
export async function resolveManifest(
  top: StoredDocument,
  platform: Platform,
  what: string,
  get: (entry: Descriptor) => Promise<StoredDocument>,
): Promise<Manifest> {
  let document = top;
  for (let depth = 0; ; depth++) {
    const parsed = parseDocument(document.bytes, what, document.mediaType);
    if (parsed.kind === 'manifest') return parsed.manifest;
    if (depth >= MAX_DEPTH) throw new BerthError('invalid', `${what}: indexes are nested too deeply`);
    document = await get(choosePlatform(parsed.entries, platform, what));
  }
}

function toPlatform(platform: NonNullable<IndexEntry['platform']>): Platform {
  const { os, architecture, variant } = platform;
  return { os, architecture, ...(variant === undefined ? {} : { variant }) };
}

/**
 * Chain IDs from diff IDs, base first (OCI image-spec, config.md, "Layer ChainID"): each names a layer
 * together with all below it.
 */
export function chainIds(diffIds: readonly string[]): string[] {
  const chain: string[] = [];
  for (const diffId of diffIds) {
    const below = chain.at(-1);
    chain.push(below === undefined ? diffId : digestOf(Buffer.from(`${below} ${diffId}`)));
  }
  return chain;
}

function parseJson(bytes: Uint8Array, what: string): object {
  if (!hasFewValues(bytes)) throw new BerthError('invalid', `${what}: has more than ${MAX_VALUES} values`);
  try {
    const json: unknown = JSON.parse(Buffer.from(bytes).toString('utf8'));
    if (typeof json === 'object' && json !== null && !Array.isArray(json)) return json;
  } catch {
    // Its message quotes the document.
  }
  throw new BerthError('invalid', `${what}: is no JSON object`);
}

/**
 * Whether JSON has no more than MAX_VALUES values, told by what stands before each: reading it must not hold up
 * everything else, and the time for that goes by their number more than by the bytes.
 */
function hasFewValues(bytes: Uint8Array): boolean {
  let values = 0;
  let isText = false;
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at];
    if (isText) {
      if (byte === BACKSLASH) at += 1;
      else if (byte === QUOTE) isText = false;
    } else if (byte === QUOTE) isText = true;
    else if (byte === COMMA || byte === BRACKET || byte === BRACE) {
      values += 1;
      if (values > MAX_VALUES) return false;
    }
  }
  return true;
}

function check<T>(schema: z.ZodType<T>, json: object, what: string): T {
  const result = schema.safeParse(json);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  throw new BerthError('invalid', `${what}: ${issue?.path.join('.') || 'document'}: ${issue?.message}`);
}
