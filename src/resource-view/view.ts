import { handlerConfig } from '../config/handler.ts';
import type { ContainerRecord } from '../container/record.ts';
import { kindOf, messageOf } from '../errors.ts';
import type { SandboxRecord } from '../sandbox/record.ts';
import type { Services } from '../services.ts';
import type { SpecMount } from '../spec/types.ts';
import { viewMounts, wantsView } from './files.ts';

/**
 * The mounts that show a container its own share of the machine; none when it is not to have them, or when
 * lxcfs is not there and the configuration says that it need not be.
 *
 * @throws BerthError `precondition`: it is to have them, and lxcfs is not there
 */
export async function viewOf(
  s: Services,
  sandbox: SandboxRecord,
  container: ContainerRecord,
): Promise<SpecMount[]> {
  const byHandler = handlerConfig(s.config, sandbox.runtimeHandler)?.resource_view ?? false;
  if (!wantsView(sandbox.config, byHandler)) return [];
  try {
    return viewMounts(s.lxcfs.dir, await s.lxcfs.files(), container.config);
  } catch (e: unknown) {
    if (s.config.resource_view.required || kindOf(e) !== 'precondition') throw e;
    s.log.warn({ container: container.id, reason: messageOf(e) }, 'the container sees the whole machine');
    return [];
  }
}
