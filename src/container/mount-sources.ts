import { BerthError, during, invalid, kindOf, messageOf } from '../errors.ts';
import { run, runOk } from '../sys/exec.ts';
import type { Mount } from './config.ts';

/** A dead network mount would hold a file-system call for ever; milliseconds. */
const SOURCE_TIMEOUT_MS = 10_000;

/**
 * Makes the host directories that mounts name and that do not exist yet, as Docker and containerd do.
 *
 * The paths are the user's, and one may lie on a mount that hangs: they are looked at by a program that
 * can be killed, never by this process, whose four file-system threads such paths would use up.
 *
 * @throws BerthError `deadline` naming the mounts when they do not answer, `invalid` when one cannot be made
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
    for (const [index, { image, hostPath }] of mounts.entries()) {
      if (image !== undefined || present.has(hostPath)) continue;
      await runOk(['mkdir', '-p', '--', hostPath], limits).catch((e: unknown) => {
        throw kindOf(e) === 'deadline' ? e : invalid(`config.mounts[${index}].host_path`, messageOf(e));
      });
      present.add(hostPath);
    }
  } catch (e: unknown) {
    if (kindOf(e) === 'invalid') throw e;
    if (kindOf(e) === 'deadline') {
      throw new BerthError('deadline', `mount sources do not answer: ${sources.join(', ')}`, { cause: e });
    }
    throw during('mount sources', e);
  }
}
