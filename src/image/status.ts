import { formatReference, isDigest, isImageId, parseReference, repository, taggedName } from './reference.ts';
import type { ImageStore } from './store.ts';
import type { Image } from './types.ts';

/**
 * The image that a caller means by an id (with or without `sha256:`), a tag or a digest reference; short
 * names are normalised. Undefined when there is none.
 *
 * With both tag and digest the digest decides, as the tag may have moved since (Docker and containerd do
 * the same).
 *
 * @throws BerthError `invalid` for text that is no reference
 */
export function resolve(store: ImageStore, text: string): Image | undefined {
  if (isImageId(text)) return store.get(isDigest(text) ? text : `sha256:${text}`);
  const reference = parseReference(text);
  const name =
    reference.digest === undefined ? taggedName(reference) : `${repository(reference)}@${reference.digest}`;
  const id = store.idOf(name ?? formatReference(reference));
  return id === undefined ? undefined : store.get(id);
}
