import { rm } from 'node:fs/promises';
import { failedAgain } from '../sandbox/record.ts';
import type { Services } from '../services.ts';
import { signal } from '../sys/process-identity.ts';
import { tearDown } from '../util/teardown.ts';
import { reapContainer } from './exit.ts';
import { removeWritableLayer } from './rootfs.ts';

/** How long a killed monitor may take to be gone, milliseconds. */
const MONITOR_MS = 5_000;

/**
 * Kills a container and forgets it. From the first moment it is not listed and holds no name; what cannot
 * be removed now stays on the to-do list (records in phase `removing`) and is tried again.
 */
export async function discardContainer(s: Services, id: string): Promise<void> {
  const container = s.containers.update(id, { phase: 'removing' });
  const paths = s.paths.container(id);
  await s.faults.at('RemoveContainer.recorded');
  const failures = await tearDown(s.faults, [
    {
      what: 'running parts',
      point: 'RemoveContainer.parts',
      undo: async () => {
        await reapContainer(s, id);
        if (s.containers.require(id).reaped !== true) throw new Error('not all could be removed');
      },
    },
    {
      what: 'monitor',
      point: 'RemoveContainer.monitor',
      undo: async () => {
        if (container.conmon === undefined) return;
        signal(container.conmon, 'SIGKILL');
        await s.poller.watchExit(container.conmon, { signal: AbortSignal.timeout(MONITOR_MS) });
        // It may have been noting the end of what was killed before it.
        await rm(paths.exit, { force: true });
      },
    },
    {
      what: 'bundle',
      point: 'RemoveContainer.bundle',
      undo: () => rm(paths.bundle, { recursive: true, force: true }),
    },
    {
      what: 'writable layer',
      point: 'RemoveContainer.writableLayer',
      undo: () => removeWritableLayer(paths),
    },
  ]);
  if (failures.length === 0) {
    await s.faults.at('RemoveContainer.forget');
    s.exits.forget(id);
    s.containers.delete(id);
    return;
  }
  const cleanup = failedAgain(container.cleanup, failures);
  s.containers.update(id, { cleanup });
  s.log.warn(
    { container: id, ...cleanup },
    'a container could not be removed wholly; it will be tried again',
  );
}
