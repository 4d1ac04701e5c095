import type { ContainerRecord } from '../container/record.ts';
import type { SandboxRecord } from '../sandbox/record.ts';

/** What happened to a container or sandbox; the words of CRI's ContainerEventType. */
export type EventType = 'created' | 'started' | 'stopped' | 'deleted';

/**
 * What a change of a container's record tells the world. Containers that nobody has seen in a list (being
 * made, or failed at it) tell nothing; one that leaves the lists is deleted, though its remains may take
 * longer.
 */
export function containerEvents(
  before: ContainerRecord | undefined,
  after: ContainerRecord | undefined,
): EventType[] {
  if (before?.phase !== 'live') return after?.phase === 'live' ? ['created'] : [];
  const events: EventType[] = [];
  // A start that failed sets both at once.
  const failed = before.exit === undefined && after?.exit !== undefined;
  if (before.startedAt === undefined && after?.startedAt !== undefined && !failed) events.push('started');
  if (!isEndTold(before) && after !== undefined && isEndTold(after)) events.push('stopped');
  if (after?.phase !== 'live') events.push('deleted');
  return events;
}

/**
 * A command of a few milliseconds has its end on record before StartContainer could record the start. That
 * end is told with the next change, which is the start's, or that of the clearing up if it never started.
 */
function isEndTold({ exit, startedAt, reaped, cleanup, phase }: ContainerRecord): boolean {
  if (exit === undefined) return false;
  return startedAt !== undefined || reaped === true || cleanup !== undefined || phase !== 'live';
}

/** The same for a sandbox: as with other runtimes, it is created and started at once. */
export function sandboxEvents(
  before: SandboxRecord | undefined,
  after: SandboxRecord | undefined,
): EventType[] {
  if (before?.phase !== 'live') return after?.phase === 'live' ? ['created', 'started'] : [];
  const events: EventType[] = [];
  if (before.stoppedAt === undefined && after?.stoppedAt !== undefined) events.push('stopped');
  if (after?.phase !== 'live') events.push('deleted');
  return events;
}
