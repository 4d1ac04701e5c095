import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { FaultPoint } from '../../src/faults.ts';

/** What is to happen at a point, once. A delay is in milliseconds. */
export type FaultAction = 'error' | 'crash' | `delay ${number}`;

/** The faults planned for one berthd; see `src/faults.ts`. */
export class FaultPlan {
  readonly file: string;

  constructor(dir: string) {
    this.file = path.join(dir, 'faults');
  }

  /** For the daemon. */
  get env(): Record<string, string> {
    return { BERTH_TEST_FAULTS: this.file };
  }

  /** Replaces the plan and forgets what has happened. */
  async set(faults: readonly { point: FaultPoint; action: FaultAction }[]): Promise<void> {
    await writeFile(`${this.file}.done`, '');
    await writeFile(this.file, faults.map(({ point, action }) => `${point} ${action}\n`).join(''));
  }

  /** The faults that have happened, as `<point> <action>`. */
  async done(): Promise<string[]> {
    const text = await readFile(`${this.file}.done`, 'utf8');
    return text.split('\n').filter((line) => line !== '');
  }
}
