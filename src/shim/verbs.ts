import type { ShimProtos } from '../../proto/load-shim.ts';
import { BerthError, during } from '../errors.ts';
import { exitMessage, inheritedEnvironment, type RunResult, run } from '../sys/exec.ts';
import { MAX_ANSWER, parseBootstrap, type ShimAddress } from './bootstrap.ts';
import { type ProcessEnd, toEnd } from './task.ts';

/** A VM's shim boots nothing here yet, but may look at a large configuration. */
const START_MS = 60_000;
const DELETE_MS = 60_000;

/** How a shim program is called. */
export interface ShimProgram {
  path: string;
  /** The namespace in which the shim keeps its things. */
  namespace: string;
  /** The socket of the daemon's events sink; to the shim also the daemon's name. */
  events: string;
  debug: boolean;
  /** Further variables of its environment. */
  env?: Readonly<Record<string, string>>;
}

/** One container's or sandbox's bundle: a directory that is named by the id, below one for all. */
export interface Bundle {
  id: string;
  dir: string;
}

/**
 * The `start` verb: starts a shim for the bundle and answers where it listens.
 *
 * @param marks variables for the environment of the verb and of the shim
 * @throws BerthError `internal` with the shim's last line; `deadline`; as {@link parseBootstrap}
 */
export async function startShim(
  program: ShimProgram,
  bundle: Bundle,
  marks: Record<string, string>,
): Promise<ShimAddress> {
  const result = await verb(program, bundle, 'start', START_MS, marks);
  return parseBootstrap(result.stdout);
}

/**
 * The `delete` verb: takes down by force what a dead shim has left of one container or sandbox.
 *
 * @returns how it ended, so far as the shim program can say
 * @throws BerthError `internal`, also where the shim never came to make anything of it; `deadline`
 */
export async function deleteWithoutShim(
  program: ShimProgram,
  bundle: Bundle,
  protos: ShimProtos,
): Promise<ProcessEnd> {
  const { stdout } = await verb(program, bundle, 'delete', DELETE_MS, {});
  try {
    return toEnd(protos.taskV2.Delete.responseDeserialize(stdout));
  } catch (e: unknown) {
    throw new BerthError('internal', 'shim delete: the answer is no DeleteResponse', { cause: e });
  }
}

async function verb(
  { path, namespace, events, debug, env }: ShimProgram,
  { id, dir }: Bundle,
  name: 'start' | 'delete',
  timeoutMs: number,
  marks: Record<string, string>,
): Promise<RunResult> {
  const argv: [string, ...string[]] = [
    path,
    ...['-namespace', namespace, '-id', id, '-address', events],
    // Some shims insist on it. They run it for their events only if there is no TTRPC_ADDRESS.
    ...['-publish-binary', '/bin/true'],
    ...(name === 'delete' ? ['-bundle', dir] : []),
    ...(debug ? ['-debug'] : []),
    name,
  ];
  try {
    const result = await run(argv, {
      cwd: dir,
      env: {
        ...inheritedEnvironment(),
        ...env,
        ...marks,
        TTRPC_ADDRESS: events,
        GRPC_ADDRESS: events,
        NAMESPACE: namespace,
        MAX_SHIM_VERSION: '3',
      },
      timeoutMs,
      maxOutput: MAX_ANSWER,
    });
    if (result.code === 0) return result;
    throw new BerthError('internal', exitMessage(path, result));
  } catch (e: unknown) {
    throw during(`shim ${name}`, e);
  }
}
