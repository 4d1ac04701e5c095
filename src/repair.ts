import { discardContainer } from './container/discard.ts';
import { reapContainer } from './container/exit.ts';
import { containerKey } from './container/record.ts';
import { messageOf } from './errors.ts';
import { discardSandbox } from './sandbox/discard.ts';
import { type CleanupState, failedAgain, sandboxKey } from './sandbox/record.ts';
import type { Services } from './services.ts';
import { SingleFlight } from './util/single-flight.ts';

/** Something that could not be taken down yet. */
export interface Repair {
  readonly kind: 'container' | 'sandbox';
  readonly id: string;
  /** What is left: all of it, or the remains of one that is still listed. */
  readonly what: 'removal' | 'remains of an exited container' | 'network of a stopped sandbox';
  readonly cleanup: CleanupState | undefined;
}

/**
 * The to-do list. It is nothing but what the records say, so it outlives the daemon, and an entry is gone
 * when its work is done.
 */
export function repairsDue(s: Services): Repair[] {
  const containers = [...s.containers.values()].flatMap((c): Repair[] => {
    const entry = { kind: 'container', id: c.id, cleanup: c.cleanup } as const;
    const isAbandoned = s.creating.get(containerKey(c.sandboxId, c.config)) === undefined;
    if (c.phase === 'removing' || (c.phase === 'creating' && isAbandoned))
      return [{ ...entry, what: 'removal' }];
    const hasRemains = c.phase === 'live' && c.exit !== undefined && c.reaped !== true;
    return hasRemains ? [{ ...entry, what: 'remains of an exited container' }] : [];
  });
  const sandboxes = [...s.sandboxes.values()].flatMap((r): Repair[] => {
    const entry = { kind: 'sandbox', id: r.id, cleanup: r.cleanup } as const;
    const isAbandoned = s.creating.get(sandboxKey(r.config)) === undefined;
    if (r.phase === 'removing' || (r.phase === 'creating' && isAbandoned))
      return [{ ...entry, what: 'removal' }];
    // A pause that died by itself leaves the network to StopPodSandbox; a reboot leaves it to nobody.
    const isOld = r.phase === 'live' && r.attachment !== undefined && r.bootId !== s.bootId;
    return isOld ? [{ ...entry, what: 'network of a stopped sandbox' }] : [];
  });
  return [...containers, ...sandboxes];
}

/** Works off the to-do list, at a start and from time to time. */
export class Repairs {
  readonly #s: Services;
  readonly #running = new SingleFlight<void>();

  constructor(s: Services) {
    this.#s = s;
  }

  /**
   * Tries everything that is due once. What an earlier call is still busy with is left to it, so that one
   * stuck thing neither holds up the others nor piles up. Never rejects.
   */
  async run(): Promise<void> {
    const due = repairsDue(this.#s);
    await Promise.all(due.map((repair) => this.#running.run(repair.id, () => this.#attempt(repair))));
  }

  /** Resolves when nothing is being tried. */
  settled(): Promise<void> {
    return this.#running.settled();
  }

  async #attempt(repair: Repair): Promise<void> {
    const { kind, id, what } = repair;
    try {
      await this.#s.faults.at('Recovery.repair');
      await this.#s.locks.run(id, () => carryOut(this.#s, repair));
    } catch (e: unknown) {
      this.#s.log.error(
        { [kind]: id, what, reason: messageOf(e) },
        'a repair failed; it will be tried again',
      );
    }
  }
}

/** The lock was waited for, so everything is looked at again. */
async function carryOut(s: Services, { kind, id, what }: Repair): Promise<void> {
  if (!repairsDue(s).some((due) => due.id === id && due.what === what)) return;
  if (what === 'remains of an exited container') await reapContainer(s, id);
  else if (what === 'network of a stopped sandbox') await releaseNetwork(s, id);
  else if (kind === 'container') await discardContainer(s, id);
  else await discardSandbox(s, id);
}

/** After a reboot the namespace is gone, but the plugins' leases are not. */
async function releaseNetwork(s: Services, id: string): Promise<void> {
  const { attachment, cleanup } = s.sandboxes.require(id);
  if (attachment === undefined) return;
  try {
    await s.cni.del(attachment);
    s.sandboxes.update(id, { attachment: undefined, cleanup: undefined });
  } catch (e: unknown) {
    s.sandboxes.update(id, { cleanup: failedAgain(cleanup, [messageOf(e)]) });
    throw e;
  }
}
