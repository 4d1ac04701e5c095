import { BerthError, during, invalid, kindOf } from '../errors.ts';
import { runOk } from '../sys/exec.ts';
import { listMounts, mountOf } from '../sys/mount.ts';
import type { Mount } from './config.ts';
import { resolveSources } from './propagation.ts';

/** As for the sources of all mounts; milliseconds. */
const LOOK_MS = 10_000;
/** A volume may have millions of files. The caller's next try joins this one; milliseconds. */
const RELABEL_MS = 3_600_000;

/** What the node itself lives on; as with the tools of other container runtimes, no pod relabels these. */
const OFF_LIMITS =
  /^\/(bin|boot|dev|etc|home|lib|lib64|media|opt|proc|root|run|sbin|srv|sys|tmp|usr|var|var\/(lib|log|run|tmp)|)$/;

/**
 * Gives the files of volumes for which the kubelet asks so the label of the pod's files. A volume whose top has
 * it already is left alone: its files are the pod's since an earlier time, and they may be many. Since the top
 * is done last, one that was cut off half way begins anew.
 *
 * The paths must exist. They are the user's, so programs look at them that can be killed, never this process.
 *
 * @throws BerthError `invalid` for a directory of the node's, `deadline` when a source does not answer
 */
export async function relabelVolumes(mounts: readonly Mount[], label: string | undefined): Promise<void> {
  if (label === undefined) return;
  const wanted = [...mounts.entries()].filter(([, m]) => m.selinuxRelabel && m.image === undefined);
  if (wanted.length === 0) return;
  const paths = await resolveSources(wanted.map(([, { hostPath }]) => hostPath));
  const entries = listMounts();
  for (const [i, [index]] of wanted.entries()) {
    const path = paths[i] ?? '';
    // NFS and the like have one label for all, given when they were mounted.
    if (!mountOf(path, entries)?.superOptions.includes('seclabel')) continue;
    if (OFF_LIMITS.test(path))
      throw invalid(`config.mounts[${index}].selinux_relabel`, `${path} is the node's and keeps its label`);
    try {
      const limits = { maxOutput: 65_536 };
      const { stdout } = await runOk(['stat', '--printf', '%C', '--', path], {
        ...limits,
        timeoutMs: LOOK_MS,
      });
      if (stdout.toString() === label) continue;
      await runOk(['chcon', '-R', '-h', '--', label, path], { ...limits, timeoutMs: RELABEL_MS });
    } catch (e: unknown) {
      if (kindOf(e) === 'deadline')
        throw new BerthError('deadline', `mount source does not answer: ${path}`, { cause: e });
      throw during(`relabel ${path}`, e);
    }
  }
}
