import type { Services } from '../services.ts';
import { discardContainer } from './discard.ts';

/** RemoveContainer: kills it if it runs and removes all of it. Absent is done. */
export async function removeContainer(s: Services, id: string): Promise<void> {
  await s.locks.run(id, async () => {
    if (s.containers.get(id)?.phase === 'live') await discardContainer(s, id);
  });
}
