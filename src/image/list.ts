import { resolve } from './status.ts';
import type { ImageStore } from './store.ts';
import type { Image } from './types.ts';

/** All images, or the one that `filter` (an id or name, as in `status.ts`) means, if any. */
export function list(store: ImageStore, filter?: string): Image[] {
  if (filter === undefined || filter === '') return store.list();
  const image = resolve(store, filter);
  return image === undefined ? [] : [image];
}
