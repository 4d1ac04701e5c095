import { BerthError } from '../errors.ts';
import { resolve } from './status.ts';
import type { ImageStore } from './store.ts';

/**
 * Removes an image with all its names, whichever of them was given: CRI's RemoveImage is defined so
 * (containerd's CRI plugin does the same), and the kubelet's garbage collection relies on it.
 *
 * @returns false when there is no such image, which is done, too
 * @throws BerthError `precondition` when a container uses it
 */
export function remove(store: ImageStore, refOrId: string, inUse: (id: string) => boolean): boolean {
  const image = resolve(store, refOrId);
  if (image === undefined) return false;
  if (inUse(image.id)) {
    throw new BerthError('precondition', `image "${refOrId}" is used by a container; remove that first`);
  }
  store.delete(image.id);
  return true;
}
