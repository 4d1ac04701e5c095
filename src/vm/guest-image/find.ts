import { readFile, realpath } from 'node:fs/promises';
import path from 'node:path';
import * as z from 'zod/mini';
import { BerthError, isErrno } from '../../errors.ts';
import type { GuestImage } from '../types.ts';

/** In an image's directory: what it is. */
export const DESCRIPTION = 'image.json';
/** In the directory of images: a link to the newest. */
export const CURRENT = 'current';

/** File names are relative to the image's directory. */
const description = z.object({
  kernel: z.string(),
  initrd: z.string(),
  rootfs: z.string(),
  rootfsType: z.literal('erofs'),
  kernelArgs: z.array(z.string()),
  /** Of the kernel, as `uname -r`. */
  release: z.string(),
});
export type Description = z.infer<typeof description>;

/** An image that was built, with what it is named and made of. */
export interface BuiltImage extends GuestImage {
  initrd: string;
  /** 16 hex digits of the digest of all that it is made from. */
  key: string;
  release: string;
}

/**
 * The newest image of a directory into which `berth vm build-guest` builds. Its paths stay good when a newer
 * one is built.
 *
 * @throws BerthError `precondition` that says what to do when there is none
 */
export async function findGuestImage(dir: string): Promise<BuiltImage> {
  return readImage(path.join(dir, CURRENT));
}

/** @throws BerthError `precondition` */
export async function readImage(link: string): Promise<BuiltImage> {
  let text: string;
  let dir: string;
  try {
    dir = await realpath(link);
    text = await readFile(path.join(dir, DESCRIPTION), 'utf8');
  } catch (e: unknown) {
    if (!isErrno(e, 'ENOENT', 'ENOTDIR')) throw e;
    throw new BerthError(
      'precondition',
      `${path.dirname(link)} has no guest image: run "berth vm build-guest"`,
      { cause: e },
    );
  }
  const { kernel, initrd, rootfs, ...rest } = parse(text, path.join(dir, DESCRIPTION));
  return {
    ...rest,
    key: path.basename(dir),
    kernel: path.join(dir, kernel),
    initrd: path.join(dir, initrd),
    rootfs: path.join(dir, rootfs),
  };
}

function parse(text: string, file: string): Description {
  try {
    return description.parse(JSON.parse(text));
  } catch (e: unknown) {
    throw new BerthError(
      'precondition',
      `${file} describes no guest image: run "berth vm build-guest --force"`,
      {
        cause: e,
      },
    );
  }
}
