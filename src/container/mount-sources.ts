import { BerthError, during, invalid } from '../errors.ts';
import { run, runOk } from '../sys/exec.ts';
import type { Mount } from './config.ts';

/** A dead network mount would hold a file-system call for ever; milliseconds. */
const SOURCE_TIMEOUT_MS = 20_000;

/**
 * Makes the host directories that mounts name and that do not exist yet, as Docker and containerd do.
 *
 * The paths are the user's, and one may lie on a mount that hangs: they are looked at by a program that
 * can be killed, never by this process, whose four file-system threads such paths would use up.
 *
 * @throws BerthError `deadline` naming the mounts when they do not answer
 */
export async function makeMountSources(mounts: readonly Mount[]): Promise<void> {
  const sources = [...new Set(mounts.filter((m) => m.image === undefined).map((m) => m.hostPath))];
  if (sources.length === 0) return;
  for (const [index, mount] of mounts.entries()) {
    if (mount.image !== undefined) continue;
    if (!mount.hostPath.startsWith('/'))
      throw invalid(`config.mounts[${index}].host_path`, 'must be an absolute path');
  }
  const limits = { timeoutMs: SOURCE_TIMEOUT_MS, maxOutput: 1024 * 1024 };
  try {
    const { stdout } = await run(['stat', '-L', '--printf', '%n\\0', '--', ...sources], limits);
    const present = new Set(stdout.toString().split('\0'));
    const missing = sources.filter((source) => !present.has(source));
    if (missing.length > 0) await runOk(['mkdir', '-p', '--', ...missing], limits);
  } catch (e: unknown) {
    if (e instanceof BerthError && e.kind === 'deadline') {
      throw new BerthError('deadline', `mount sources do not answer: ${sources.join(', ')}`, { cause: e });
    }
    throw during('mount sources', e);
  }
}
