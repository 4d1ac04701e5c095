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

/** Between two looks at the list, milliseconds. */
const LOOK_MS = 1_000;
/** What has failed is left alone for so long, doubled with each failure up to the second; milliseconds. */
const WAIT_MS = 1_000;
const MAX_WAIT_MS = 60_000;

/** Works off the to-do list, from the start until it is closed. */
export class Repairs {
  readonly #s: Services;
  readonly #running = new SingleFlight<void>();
  /** When the next try may begin, on performance.now()'s clock, by id. */
  readonly #notBefore = new Map<string, number>();
  readonly #timer: NodeJS.Timeout;

  constructor(s: Services) {
    this.#s = s;
    this.#timer = setInterval(() => this.#look(), LOOK_MS);
    this.#timer.unref();
    this.#look();
  }

  /** Begins nothing more and waits for what is being tried. Repeatable. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#running.settled();
  }

  /**
   * Tries everything that is due. What is still being tried from before is left to that, so that one stuck
   * thing neither holds up the others nor piles up.
   */
  #look(): void {
    const due = repairsDue(this.#s);
    const ids = new Set(due.map(({ id }) => id));
    for (const id of this.#notBefore.keys()) if (!ids.has(id)) this.#notBefore.delete(id);
    for (const repair of due) {
      if (performance.now() < (this.#notBefore.get(repair.id) ?? 0)) continue;
      void this.#running.run(repair.id, () => this.#attempt(repair));
    }
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
    const wait = Math.min(WAIT_MS * 2 ** (repair.cleanup?.attempts ?? 0), MAX_WAIT_MS);
    this.#notBefore.set(id, performance.now() + wait);
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
