import type { Database } from '../persist/database.ts';
import type { ContentStore } from './content.ts';
import type { LayerStore } from './layers.ts';
import type { Leases } from './leases.ts';
import type { ImageStore } from './store.ts';

/** What collection works on. */
export interface CollectDeps {
  db: Database;
  content: ContentStore;
  layers: LayerStore;
  leases: Leases;
  store: ImageStore;
  /** Ids of the images that containers use. */
  used: () => ReadonlySet<string>;
}

/**
 * Removes images that were only kept for containers which have gone, then blobs and layers that no image refers to and no pull or import under way holds. Each is forgotten
 * in the same turn of the event loop in which it was found unreferenced, so a pull that starts meanwhile
 * finds it whole or not at all.
 */
export async function collect({ db, content, layers, leases, store, used }: CollectDeps): Promise<void> {
  const inUse = used();
  for (const id of store.hidden()) if (!inUse.has(id)) store.delete(id);
  const removals: Promise<void>[] = [];
  const chains = db.all<{ chain_id: string }>(
    'SELECT chain_id FROM layers WHERE chain_id NOT IN (SELECT chain_id FROM image_layers)',
  );
  for (const { chain_id } of chains) if (!leases.has(chain_id)) removals.push(layers.remove(chain_id));
  const blobs = db.all<{ digest: string }>(
    'SELECT digest FROM blobs WHERE digest NOT IN (SELECT digest FROM image_blobs)',
  );
  for (const { digest } of blobs) if (!leases.has(digest)) removals.push(content.remove(digest));
  const results = await Promise.allSettled(removals);
  const failed = results.find((result) => result.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
}
