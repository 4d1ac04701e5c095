import { readOptional, write, writeOptional } from '../io.ts';
import { parseFlatKeyed } from '../parse.ts';
import { backoff } from '../tree.ts';

/** Freezes the subtree and waits until the kernel reports it frozen (cgroup-v2.rst, cgroup.freeze). */
export async function freeze(dir: string, signal: AbortSignal): Promise<void> {
  try {
    await write(dir, 'cgroup.freeze', '1');
    for (let attempt = 0; ; attempt++) {
      if (parseFlatKeyed(readOptional(dir, 'cgroup.events')).get('frozen') === 1n) return;
      await backoff(attempt, dir, 'freezing cgroup', signal);
    }
  } catch (e) {
    await thaw(dir);
    throw e;
  }
}

export async function thaw(dir: string): Promise<void> {
  await writeOptional(dir, 'cgroup.freeze', '0');
}
