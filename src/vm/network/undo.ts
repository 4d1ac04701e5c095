import { isErrno } from '../../errors.ts';
import { namespaceInode, readNetDev } from '../../sys/namespaces.ts';

/** What takes away, last first, what was made in a network namespace. */
export class UndoStack {
  readonly #netns: string;
  readonly #steps: { device: string; undo: () => unknown }[] = [];

  constructor(netns: string) {
    this.#netns = netns;
  }

  /** To be called when the thing is made; when `device` has gone, there is nothing to be undone. */
  push(device: string, undo: () => unknown): void {
    this.#steps.push({ device, undo });
  }

  /** Repeatable: goes on where it failed. @throws BerthError */
  readonly undo = async (): Promise<void> => {
    for (let step = this.#steps.at(-1); step !== undefined; step = this.#steps.at(-1)) {
      try {
        if (this.#has(step.device)) await step.undo();
      } catch (e: unknown) {
        // It may have gone meanwhile.
        if (this.#has(step.device)) throw e;
      }
      this.#steps.pop();
    }
  };

  #has(device: string): boolean {
    if (namespaceInode(this.#netns) === undefined) return false;
    try {
      return readNetDev(this.#netns).some(({ name }) => name === device);
    } catch (e: unknown) {
      if (isErrno(e, 'ENOENT', 'EINVAL')) return false;
      throw e;
    }
  }
}
