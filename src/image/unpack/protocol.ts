import type { ErrorKind } from '../../errors.ts';

/**
 * What the unpacking process is asked for, as JSON in its first argument. The layer is the file on its stdin,
 * which may still grow; on descriptor 3 it is told how far it may read (`follow.ts`), and that closing before
 * the end means that nobody wants the layer any more.
 */
export interface UnpackRequest {
  /** Bytes of the layer as stored. */
  blobBytes: number;
  /** An existing empty directory, which becomes the process's root. */
  target: string;
  /** Hash of the diff ID: `sha256` or `sha512`. */
  algorithm: string;
  limits: UnpackLimits;
}

/** Bounds of one layer. The defaults are far above real images: the largest in use have some 500,000 files. */
export interface UnpackLimits {
  /** Files, directories and all else, also the directories that are only implied. */
  inodes: number;
  /** Decompressed bytes. */
  bytes: number;
}

/** The lines that the process writes to stdout, one JSON object each; the last is a result or a failure. */
export type UnpackMessage =
  | { kind: 'progress'; bytes: number; inodes: number }
  | ({ kind: 'result' } & UnpackResult)
  | { kind: 'failure'; errorKind: ErrorKind; message: string };

/** What became of a layer. */
export interface UnpackResult {
  /** `<algorithm>:<hex>` of the decompressed tar (OCI image-spec, config.md, "Layer DiffID"). */
  diffId: string;
  /** Allocated bytes on disk. */
  size: number;
  inodes: number;
  /** The layer's root is opaque: nothing of lower layers is to be seen. */
  opaqueRoot: boolean;
  /**
   * Directories that the archive only implied, absolute in the layer, parents first: they take the
   * attributes of the same directories in lower layers. Base64, as names are bytes.
   */
  impliedDirs: string[];
}
