/** Something that lets so much work run at once. */
export interface Slots {
  /** Runs `work` when its turn comes. @throws the signal's reason when it fires before that */
  run<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T>;
}

/** At most so many at once; others wait in order. */
export class Semaphore implements Slots {
  #free: number;
  /** In order of arrival; a Set, so that whoever gives up leaves it at once. */
  readonly #waiting = new Set<() => void>();

  constructor(slots: number) {
    this.#free = slots;
  }

  async run<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    signal.throwIfAborted();
    if (this.#free > 0) this.#free -= 1;
    else await this.#turn(signal);
    try {
      return await work();
    } finally {
      const [next] = this.#waiting;
      if (next === undefined) this.#free += 1;
      else next();
    }
  }

  #turn(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const leave = (): void => {
        this.#waiting.delete(start);
        signal.removeEventListener('abort', abort);
      };
      const start = (): void => {
        leave();
        resolve();
      };
      const abort = (): void => {
        leave();
        reject(signal.reason);
      };
      this.#waiting.add(start);
      signal.addEventListener('abort', abort, { once: true });
    });
  }
}

/** Slots that need a turn of each, taken in this order. */
export function nested(...all: readonly Slots[]): Slots {
  return {
    run: (signal, work) => {
      let run = work;
      for (const slots of all.toReversed()) {
        const inner = run;
        run = () => slots.run(signal, inner);
      }
      return run();
    },
  };
}

/** A semaphore per key, such as a registry's host; one that nobody uses is forgotten. */
export class KeyedSlots {
  readonly #slots: number;
  readonly #byKey = new Map<string, { semaphore: Semaphore; users: number }>();

  constructor(slots: number) {
    this.#slots = slots;
  }

  of(key: string): Slots {
    return {
      run: async (signal, work) => {
        const entry = this.#byKey.get(key) ?? { semaphore: new Semaphore(this.#slots), users: 0 };
        this.#byKey.set(key, entry);
        entry.users += 1;
        try {
          return await entry.semaphore.run(signal, work);
        } finally {
          entry.users -= 1;
          if (entry.users === 0) this.#byKey.delete(key);
        }
      },
    };
  }
}
