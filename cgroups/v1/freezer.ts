import { readOptional, write, writeOptional } from '../io.ts';
import { backoff } from '../tree.ts';

/**
 * Freezes the subtree and waits for it. The state can stay FREEZING while tasks are being forked or
 * sleep uninterruptibly; writing again picks up the newcomers (freezer-subsystem.rst).
 */
export async function freeze(dir: string, signal: AbortSignal): Promise<void> {
  try {
    for (let attempt = 0; ; attempt++) {
      await write(dir, 'freezer.state', 'FROZEN');
      if (readOptional(dir, 'freezer.state')?.trim() === 'FROZEN') return;
      await backoff(attempt, dir, 'freezing cgroup', signal);
    }
  } catch (e) {
    await thaw(dir);
    throw e;
  }
}

export async function thaw(dir: string): Promise<void> {
  await writeOptional(dir, 'freezer.state', 'THAWED');
}
