import type { Services } from '../services.ts';
import { nowNs } from '../util/nanoseconds.ts';

/**
 * Watches the pause process of a live sandbox, if it has one. When it dies by itself (killed from outside, out of
 * memory) the sandbox is NOTREADY from that moment, and the kubelet stops it and makes another.
 */
export function watchPause(s: Services, id: string): void {
  const { pause } = s.sandboxes.require(id);
  if (pause === undefined) return;
  s.exits.watch(id, pause, async () => {
    const sandbox = s.sandboxes.get(id);
    if (sandbox?.phase !== 'live' || sandbox.stoppedAt !== undefined) return;
    s.log.warn({ sandbox: id }, 'the pause process has ended; the sandbox is not ready any more');
    s.sandboxes.update(id, { stoppedAt: nowNs() });
  });
}
