import { BerthError } from '../errors.ts';
import type { Services } from '../services.ts';
import { containerState } from './record.ts';
import { live, runtimeOf } from './start.ts';

/**
 * ReopenContainerLog: returns when the new log file is there. Works while the container is being
 * stopped, since no lock is taken.
 *
 * @throws BerthError `notFound`; `precondition` when the container is not running
 */
export async function reopenContainerLog(s: Services, id: string): Promise<void> {
  const container = live(s, id);
  const state = containerState(container);
  if (state !== 'running') throw new BerthError('precondition', `the container is ${state}, not running`);
  await runtimeOf(s, container).reopenLog(container);
}
