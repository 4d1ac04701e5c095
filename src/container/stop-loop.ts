import { MAX_TIMER_MS } from '../util/abort.ts';

/** One stop under way. */
interface Loop {
  /** Milliseconds on performance.now()'s clock at which grace ends. */
  deadline: number;
  shorten: (deadline: number) => void;
  done: Promise<void>;
}

/**
 * One stop loop per container owns the killing; a later StopContainer can only bring its deadline
 * forward. So a stop with a day's grace never makes a later, urgent one wait.
 */
export class StopLoops {
  readonly #loops = new Map<string, Loop>();

  /**
   * Joins the stop of `id`, or begins one: `work` is called with a promise of the end of grace.
   * `graceMs` counts from now.
   */
  run(id: string, graceMs: number, work: (graceOver: Promise<void>) => Promise<void>): Promise<void> {
    const deadline = performance.now() + graceMs;
    const running = this.#loops.get(id);
    if (running !== undefined) {
      running.shorten(deadline);
      return running.done;
    }
    const grace = Promise.withResolvers<void>();
    let timer = after(graceMs, grace.resolve);
    const loop: Loop = {
      deadline,
      shorten: (at) => {
        if (at >= loop.deadline) return;
        loop.deadline = at;
        clearTimeout(timer);
        timer = after(at - performance.now(), grace.resolve);
      },
      done: work(grace.promise).finally(() => {
        clearTimeout(timer);
        this.#loops.delete(id);
      }),
    };
    this.#loops.set(id, loop);
    return loop.done;
  }
}

function after(ms: number, fire: () => void): NodeJS.Timeout {
  return setTimeout(fire, Math.min(Math.max(ms, 0), MAX_TIMER_MS));
}
