import { stat } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { BerthError, type ErrorKind, isErrno } from '../errors.ts';
import { type RunResult, run } from '../sys/exec.ts';
import { helperMark } from '../sys/helpers.ts';
import type { NetworkConf, PluginConf } from './conf.ts';
import { excerpt, isJsonObject, type JsonObject } from './json.ts';

export type CniCommand = 'ADD' | 'DEL' | 'STATUS' | 'GC';

/** What a command is about; STATUS and GC are about no container and leave these empty. */
export interface PluginTarget {
  containerId: string;
  /** Path of the network namespace; empty when it is gone (allowed for DEL). */
  netns: string;
  ifName: string;
  /** `CNI_ARGS`, as `key=value;…`. */
  args: string;
}

/** Where plugins are and how they may run. */
export interface PluginHost {
  binDirs: readonly string[];
  /** What plugins inherit (`inheritedEnvironment()`); they need PATH for iptables and the like. */
  env: Readonly<Record<string, string | undefined>>;
}

/**
 * A plugin's own refusal, or its crash. `code` is that of the CNI specification ("Error"), absent when
 * the plugin did not say one.
 */
export class PluginError extends BerthError {
  readonly code: number | undefined;

  constructor(kind: ErrorKind, message: string, code?: number) {
    super(kind, message);
    this.name = 'PluginError';
    this.code = code;
  }
}

/** CNI error codes that decide something here (SPEC, "Error"). */
export const cniErrors = { unknownContainer: 3, invalidEnvironment: 4, tryAgainLater: 11 } as const;

/** Bytes of one answer. A result with every route of a large cluster is well below this. */
const maxOutput = 1 << 20;
/** Attempts to start a binary that someone is still writing, 500 ms apart. */
const busyAttempts = 6;

/**
 * Full path of a plugin's binary: the first regular file of that name in `binDirs`.
 * @throws BerthError `unavailable`, naming the plugin and the directories
 */
export async function findPlugin(type: string, binDirs: readonly string[]): Promise<string> {
  for (const dir of binDirs) {
    const path = join(dir, type);
    try {
      if ((await stat(path)).isFile()) return path;
    } catch (e: unknown) {
      if (!isErrno(e, 'ENOENT', 'ENOTDIR')) throw e;
    }
  }
  throw new BerthError('unavailable', `CNI plugin "${type}" is not in ${binDirs.join(' or ')}`);
}

/**
 * What one plugin reads on stdin: its own configuration under the network's name and version, with
 * `inject` (prevResult, attachments) and the capability arguments that it declares.
 */
export function pluginStdin(
  network: Pick<NetworkConf, 'name' | 'cniVersion'>,
  plugin: PluginConf,
  inject: JsonObject,
  capabilityArgs: JsonObject,
): string {
  const granted = plugin.capabilities.filter((c) => Object.hasOwn(capabilityArgs, c));
  const runtimeConfig = Object.fromEntries(granted.map((c) => [c, capabilityArgs[c]]));
  return JSON.stringify({
    ...plugin.conf,
    name: network.name,
    cniVersion: network.cniVersion,
    ...inject,
    ...(granted.length > 0 && { runtimeConfig }),
  });
}

/** The environment of one call (SPEC, "Parameters"). */
export function pluginEnv(
  command: CniCommand,
  target: PluginTarget,
  host: PluginHost,
): Record<string, string | undefined> {
  return {
    ...host.env,
    // A login shell's PATH on Debian has no sbin, where iptables and tc are.
    PATH: [host.env.PATH, '/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin'].filter(Boolean).join(delimiter),
    ...(target.containerId === '' ? {} : helperMark(target.containerId)),
    CNI_COMMAND: command,
    CNI_CONTAINERID: target.containerId,
    CNI_NETNS: target.netns,
    CNI_IFNAME: target.ifName,
    CNI_ARGS: target.args,
    CNI_PATH: host.binDirs.join(delimiter),
  };
}

/**
 * Runs one plugin once and returns what it wrote to stdout.
 * @param options.timeoutMs milliseconds until the plugin and its children are killed
 * @throws PluginError when the plugin fails (kind `unavailable` where trying again can help);
 *   BerthError `deadline` or `cancelled` when it was killed for time or by `signal`
 */
export async function execPlugin(
  command: CniCommand,
  type: string,
  stdin: string,
  target: PluginTarget,
  host: PluginHost,
  options: { timeoutMs: number; signal?: AbortSignal },
): Promise<string> {
  const path = await findPlugin(type, host.binDirs);
  const env = pluginEnv(command, target, host);
  for (let attempt = 1; ; attempt++) {
    try {
      const result = await run([path], { input: stdin, env, maxOutput, ...options });
      if (result.code !== 0) throw pluginError(type, command, result);
      return result.stdout.toString();
    } catch (e: unknown) {
      // An installer is replacing the binary in place; libcni waits for it too.
      if (!isErrno(e, 'ETXTBSY') || attempt === busyAttempts) throw e;
      await delay(500, undefined, options.signal ? { signal: options.signal } : {});
    }
  }
}

function pluginError(type: string, command: CniCommand, result: RunResult): PluginError {
  const said = parseError(result.stdout.toString());
  const how = result.code === null ? `was ended by ${result.signal}` : `exited with ${result.code}`;
  const unsaid = excerpt(result.stderr.toString()) || excerpt(result.stdout.toString());
  const what = said?.text ?? (unsaid === '' ? how : `${how}: ${unsaid}`);
  const retry = said !== undefined && [cniErrors.tryAgainLater, 50, 51].includes(said.code);
  return new PluginError(
    retry ? 'unavailable' : 'internal',
    `CNI plugin "${type}" failed on ${command}: ${what}`,
    said?.code,
  );
}

/** The plugin's error object, if it wrote one. */
function parseError(stdout: string): { code: number; text: string } | undefined {
  let raw: unknown;
  try {
    raw = JSON.parse(stdout);
  } catch {
    return undefined;
  }
  if (!isJsonObject(raw) || typeof raw.msg !== 'string' || typeof raw.code !== 'number') return undefined;
  const details = typeof raw.details === 'string' && raw.details !== '' ? `; ${raw.details}` : '';
  return { code: raw.code, text: excerpt(raw.msg + details) };
}
