import { messageOf } from '../errors.ts';
import type { FaultPoint, Faults } from '../faults.ts';

/** One step of taking something down. Steps are repeatable: what is already gone counts as done. */
export interface TeardownStep {
  /** What is taken down, for messages: `CNI network`, `pause container`. */
  what: string;
  point: FaultPoint;
  undo: () => Promise<void> | void;
}

/**
 * Runs every step in order, also after one has failed, so that one stuck mount does not leak an IP.
 *
 * @returns the failures as `what: message` lines; empty when all is gone.
 */
export async function tearDown(faults: Faults, steps: readonly TeardownStep[]): Promise<string[]> {
  const failures: string[] = [];
  for (const step of steps) {
    try {
      await faults.at(step.point);
      await step.undo();
    } catch (e: unknown) {
      failures.push(`${step.what}: ${messageOf(e)}`);
    }
  }
  return failures;
}
