import { BerthError, messageOf } from '../errors.ts';
import type { RuntimeHandler } from '../runtime/handler.ts';
import type { Services } from '../services.ts';
import { nowNs } from '../util/nanoseconds.ts';
import { reapContainer, startError } from './exit.ts';
import { type ContainerRecord, containerState } from './record.ts';

/**
 * StartContainer: runs the container's command. One that cannot be started becomes EXITED with code 128
 * and reason StartError, so that the kubelet backs off and shows the message.
 *
 * @throws BerthError `notFound`; `precondition` when it is not CREATED; `internal` with the OCI runtime's message
 */
export async function startContainer(s: Services, id: string): Promise<void> {
  const container = live(s, id);
  await s.locks.run(id, async () => {
    const state = containerState(live(s, id));
    if (state !== 'created') throw new BerthError('precondition', `the container is ${state}, not created`);
    const runtime = s.runtimes.get(s.sandboxes.require(container.sandboxId).runtimeHandler);
    if (container.createError !== undefined) await failStart(s, id, container.createError);
    // Before the start: a command that ends at once must not seem to have ended before it began.
    const startedAt = nowNs();
    await s.faults.at('StartContainer.begun');
    try {
      await runtime?.start(id);
    } catch (e: unknown) {
      // A call before this one may have started it and then failed to record that.
      const isStarted = await runtime?.isStarted(id).catch(() => false);
      if (isStarted !== true) await failStart(s, id, messageOf(e));
    }
    await s.faults.at('StartContainer.started');
    s.containers.update(id, { startedAt });
    await s.faults.at('StartContainer.recorded');
  });
}

/** @throws BerthError `precondition` when the configuration has lost the handler of the container's pod */
export function runtimeOf(s: Services, { sandboxId }: Pick<ContainerRecord, 'sandboxId'>): RuntimeHandler {
  const { runtimeHandler } = s.sandboxes.require(sandboxId);
  const runtime = s.runtimes.get(runtimeHandler);
  if (runtime !== undefined) return runtime;
  throw new BerthError('precondition', `the handler "${runtimeHandler}" is not configured any more`);
}

/** @throws BerthError `notFound` for what is not listed, too. */
export function live(s: Services, id: string): ContainerRecord {
  const container = s.containers.require(id);
  if (container.phase !== 'live') throw new BerthError('notFound', `container "${id}" not found`);
  return container;
}

async function failStart(s: Services, id: string, message: string): Promise<never> {
  s.containers.update(id, { startedAt: nowNs(), exit: startError(message) });
  await reapContainer(s, id);
  throw new BerthError('internal', `failed to start the container: ${message}`);
}
