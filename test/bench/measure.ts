import type { Subject } from './subject.ts';

/** How much is done. Everything is bounded. */
export interface Size {
  /** How often each measure is taken of each daemon. */
  rounds: number;
  /** Pods of the populated node. */
  pods: number;
  /** Pods started and removed one after the other, per round. */
  starts: number;
  /** Whole pod lives 8 at a time, per round. */
  lives: number;
  /** ExecSync calls, per round; the same number again 8 at a time. */
  execs: number;
  /** Lines of 100 bytes that one container writes. */
  logLines: number;
  /** Calls of each list, per round. */
  calls: number;
  /** Of the images that are pulled: 1 is some 150 MB compressed, or 50,000 files. */
  imageScale: number;
  /** How long the idle daemons are watched, milliseconds. */
  idleMs: number;
}

/** What a ratio must keep to. */
export type Bar = { atMost: number } | { atLeast: number };

/** One row of the table. */
export interface Figure {
  key: string;
  title: string;
  unit: 'ms' | 's' | 'MiB' | '/s' | 'ms/s';
  /** Of berth's value divided by containerd's. */
  bar?: Bar;
  /** Of berth's value itself, in its unit. */
  own?: Bar;
}

/** Values by the keys of the figures; what a daemon cannot do is left out. */
export type Values = Record<string, number>;

/** One thing that is measured, by the name that `--only` takes. */
export interface Measure {
  name: string;
  figures: (size: Size) => Figure[];
  /** Wants the pods of a populated node there. */
  populated?: boolean;
  /** Kills or stops the daemon. */
  restarts?: boolean;
  /** Of all daemons at the same time: one that only waits disturbs nobody. */
  together?: boolean;
  run(subject: Subject, size: Size): Promise<Values>;
}

/** How many calls are in flight where the bench loads a daemon. */
export const PARALLEL = 8;

/** The value below which the share `p` (0 to 1) of the values lies. */
export function quantile(values: readonly number[], p: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const at = Math.min(sorted.length - 1, Math.max(0, Math.ceil(p * sorted.length) - 1));
  const value = sorted[at];
  if (value === undefined) throw new Error('no values');
  return value;
}

/** The median; of an even number of values the mean of the middle two. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const [low, high] = [sorted[Math.floor((sorted.length - 1) / 2)], sorted[Math.floor(sorted.length / 2)]];
  if (low === undefined || high === undefined) throw new Error('no values');
  return (low + high) / 2;
}
