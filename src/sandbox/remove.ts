import type { Services } from '../services.ts';
import { discardSandbox } from './discard.ts';

/** RemovePodSandbox: stops what runs and removes the sandbox with its containers. Absent is done. */
export async function removePodSandbox(s: Services, id: string): Promise<void> {
  await s.locks.run(id, async () => {
    if (s.sandboxes.get(id)?.phase === 'live') await discardSandbox(s, id);
  });
}
