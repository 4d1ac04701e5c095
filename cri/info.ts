import { readFile } from 'node:fs/promises';
import { isErrno } from '../src/errors.ts';
import type { Services } from '../src/services.ts';
import { parseOci, stringifyOci } from '../src/spec/json.ts';
import { vmShimProgram } from '../src/vm/program.ts';

/**
 * The `info` of a verbose answer: one key, `info`, with a JSON object. The protocol leaves its members to
 * the runtime; those that containerd has too (sandboxID, pid, snapshotKey, config, runtimeSpec …) have
 * containerd's names, so that what people wrote for `crictl inspect` goes on working.
 */
export function verboseInfo(members: Record<string, unknown>): Record<string, string> {
  return { info: stringifyOci(members) };
}

/** What an OCI bundle's config.json says, or null when it is gone, as after a reboot. */
export async function readSpec(file: string): Promise<unknown> {
  try {
    return parseOci(await readFile(file, 'utf8'));
  } catch (e: unknown) {
    // A pod that is being made or removed may have half a file.
    if (isErrno(e, 'ENOENT', 'ENOTDIR') || e instanceof SyntaxError) return null;
    throw e;
  }
}

/** The handler by its name in the configuration, and what it is. */
export function runtimeInfo({ config }: Services, handler: string): Record<string, unknown> {
  const runtimeHandler = handler === '' ? config.default_runtime : handler;
  const runtime = Object.hasOwn(config.runtimes, runtimeHandler)
    ? config.runtimes[runtimeHandler]
    : undefined;
  return {
    runtimeHandler,
    runtimeType: runtime?.type ?? null,
    runtimeOptions: runtime === undefined ? null : { path: runtime.path || vmShimProgram() },
  };
}
