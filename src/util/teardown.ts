import { messageOf } from '../errors.ts';

/** One step of taking something down. Steps are repeatable: what is already gone counts as done. */
export interface TeardownStep {
  /** What is taken down, for messages: `CNI network`, `pause container`. */
  what: string;
  undo: () => Promise<void> | void;
}

/**
 * Runs every step in order, also after one has failed, so that one stuck mount does not leak an IP.
 *
 * @returns the failures as `what: message` lines; empty when all is gone.
 */
export async function tearDown(steps: TeardownStep[]): Promise<string[]> {
  const failures: string[] = [];
  for (const step of steps) {
    try {
      await step.undo();
    } catch (e: unknown) {
      failures.push(`${step.what}: ${messageOf(e)}`);
    }
  }
  return failures;
}
