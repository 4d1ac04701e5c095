import { join } from 'node:path';
import type { ShimProtos } from '../../shim/protos.ts';
import { endHelpers, findHelpers } from '../../sys/helpers.ts';
import { nowNs } from '../../util/nanoseconds.ts';
import type { ShimArguments } from './arguments.ts';
import { MACHINE_MARK, VmDirectory } from './directory.ts';
import { KILLED_CODE, readEnd } from './end-file.ts';
import { OciSpec } from './oci.ts';
import { roleOf } from './role.ts';
import { unmountRootfs } from './rootfs.ts';
import { unshare } from './share.ts';
import { removeMachine } from './take-down.ts';
import { timestamp } from './timestamp.ts';

/**
 * The `delete` verb: takes down what a dead shim has left of a sandbox, machine and all, or of one container. Needs
 * nothing but the machine's directory, and is repeatable.
 *
 * @returns a DeleteResponse
 */
export async function deleteBundle(args: ShimArguments, protos: ShimProtos): Promise<Buffer> {
  const bundle = args.bundle || process.cwd();
  const spec = await OciSpec.read(bundle).catch(() => undefined);
  const role = roleOf(spec?.annotations ?? {});
  const sandboxId = role.kind === 'container' ? role.sandboxId : args.id;
  const directory = VmDirectory.of(args.namespace, sandboxId);
  if (role.kind === 'container') await unshare(directory, args.id);
  else {
    await endMachine(directory);
    await removeMachine(directory);
  }
  unmountRootfs(join(bundle, 'rootfs'));
  const { code, at } = readEnd(bundle) ?? { code: KILLED_CODE, at: nowNs() };
  const exited_at = timestamp(at);
  return protos.taskV2.Delete.responseSerialize({
    exit_status: code,
    ...(exited_at === undefined ? {} : { exited_at }),
  });
}

/** The hypervisor and all others that the shim has started, and the shim if it lives. */
async function endMachine(directory: VmDirectory): Promise<void> {
  for (;;) {
    const left = await findHelpers(new Set([directory.path]), { variable: MACHINE_MARK });
    if (left.length === 0) return;
    await endHelpers(left);
    // A process that was killed may have started another since the look.
  }
}
