import type { ImageStore } from './store.ts';
import type { Image } from './types.ts';

/**
 * The images that nobody needs: no container uses them, and they are not pinned. Removing these is the
 * kubelet's business, by age and at the thresholds that its administrator set; here it is only on request.
 */
export function unusedImages(store: ImageStore, used: ReadonlySet<string>): Image[] {
  return store.list().filter(({ id, pinned }) => !pinned && !used.has(id));
}
