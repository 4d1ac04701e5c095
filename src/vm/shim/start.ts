import { closeSync, openSync, readFileSync } from 'node:fs';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { BerthError } from '../../errors.ts';
import { inheritedEnvironment } from '../../sys/exec.ts';
import { spawnChild } from '../../sys/spawn.ts';
import type { ShimArguments } from './arguments.ts';
import { joinCgroup } from './cgroup.ts';
import { MACHINE_MARK, VmDirectory } from './directory.ts';
import { OciSpec } from './oci.ts';
import { roleOf } from './role.ts';
import { loadSettings } from './settings.ts';

const { MALLOC_ARENA_MAX, NODE_COMPILE_CACHE, NODE_COMPILE_CACHE_PORTABLE } = process.env;
/** What bin/containerd-shim-berth-vm-v2 set for this program, and for no other that it starts. */
const OWN_ENVIRONMENT = { MALLOC_ARENA_MAX, NODE_COMPILE_CACHE, NODE_COMPILE_CACHE_PORTABLE };
/** A daemon that has not come up by then does not, milliseconds. */
const READY_MS = 30_000;
const MAX_MESSAGE = 64 * 1024;

/**
 * The `start` verb: a daemon for a sandbox, or the address of the one that a container's sandbox has. The bundle is the
 * working directory.
 *
 * @returns what is to be printed: an address, or from version 3 on a JSON object with one
 * @throws BerthError with the daemon's last line
 */
export async function start(args: ShimArguments, argv: readonly string[]): Promise<string> {
  const bundle = process.cwd();
  const spec = await OciSpec.read(bundle);
  const role = roleOf(spec.annotations);
  const sandboxId = role.kind === 'container' ? role.sandboxId : args.id;
  const directory = VmDirectory.of(args.namespace, sandboxId);
  if (role.kind !== 'container') {
    await directory.make();
    await writeFile(directory.settings, JSON.stringify(await loadSettings(process.env)), { mode: 0o600 });
    await joinCgroup(directory, spec.cgroupsPath);
    await startDaemon(directory, argv);
  }
  const address = `unix://${directory.socket}`;
  // containerd looks for it here when it has been restarted.
  await writeFile(join(bundle, 'address'), address);
  return bootstrap(address, process.env.MAX_SHIM_VERSION);
}

/** Exported for tests. */
export function bootstrap(address: string, maxVersion: string | undefined): string {
  // Nobody who knows version 3 leaves out what it knows; others read the address as the whole answer.
  return Number(maxVersion ?? '2') >= 3
    ? JSON.stringify({ version: 3, address, protocol: 'ttrpc' })
    : address;
}

async function startDaemon(directory: VmDirectory, argv: readonly string[]): Promise<void> {
  const [node, ...flags] = argv;
  if (node === undefined) throw new BerthError('internal', 'the shim does not know how to start itself');
  const errors = openSync(directory.errors, 'w', 0o600);
  try {
    const child = spawnChild(node, flags, {
      env: { ...inheritedEnvironment(), ...OWN_ENVIRONMENT, [MACHINE_MARK]: directory.path },
      stdio: ['ignore', 'out', errors],
    });
    const [, output] = child.pipes;
    const said = await firstLine(output);
    if (said === 'ready') return;
    await child.exited;
    const last = readFileSync(directory.errors, 'utf8').trimEnd().split('\n').at(-1);
    throw new BerthError('internal', last || 'the shim ended as soon as it had started');
  } catch (e: unknown) {
    await rm(directory.socket, { force: true });
    throw e;
  } finally {
    closeSync(errors);
  }
}

async function firstLine(output: Readable | undefined): Promise<string> {
  const timer = setTimeout(() => output?.destroy(), READY_MS);
  let text = '';
  try {
    for await (const chunk of output ?? []) {
      text += chunk;
      if (text.includes('\n') || text.length > MAX_MESSAGE) break;
    }
  } catch {
    // Too late, or gone: its end tells more.
  } finally {
    clearTimeout(timer);
  }
  return text.split('\n')[0] ?? '';
}
