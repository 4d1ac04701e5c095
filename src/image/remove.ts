import { resolve } from './status.ts';
import type { ImageStore } from './store.ts';

/**
 * Removes an image with all its names, whichever of them was given: CRI's RemoveImage is defined so, and the
 * kubelet's garbage collection relies on it. An image that containers use is gone for lists and new
 * containers, while its content stays until the last of them has been removed; containerd does the same.
 *
 * @returns false when there is no such image, which is done, too
 * @throws BerthError `invalid` for text that is no reference
 */
export function remove(store: ImageStore, refOrId: string, used: ReadonlySet<string>): boolean {
  const image = resolve(store, refOrId);
  if (image === undefined) return false;
  if (used.has(image.id)) store.hide(image.id);
  else store.delete(image.id);
  return true;
}
