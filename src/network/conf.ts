import { constants } from 'node:fs';
import { open, readdir } from 'node:fs/promises';
import { basename, extname, join } from 'node:path';
import { BerthError, isErrno, messageOf } from '../errors.ts';
import { isJsonObject, type JsonObject } from './json.ts';

/** The versions of the CNI specification that berth speaks, oldest first. 0.3.0 has the results of 0.3.1. */
export const cniVersions = ['0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'] as const;
export type CniVersion = (typeof cniVersions)[number];

/** One plugin of a network: its binary's name and its configuration as the file has it. */
export interface PluginConf {
  type: string;
  /** What the plugin says it takes through `runtimeConfig` (CNI CONVENTIONS.md); only the enabled ones. */
  capabilities: string[];
  conf: JsonObject;
}

/** A network: a chain of plugins under one name. Plain data, so that a sandbox's record can hold it. */
export interface NetworkConf {
  name: string;
  cniVersion: CniVersion;
  disableGC: boolean;
  plugins: PluginConf[];
}

/** What is in a configuration directory: the network in use, and why files before it are not. */
export interface LoadedConf {
  /** The first valid file in byte order of names, if there is one. */
  network?: NetworkConf;
  /** Path of the file that `network` came from. */
  file?: string;
  skipped: SkippedFile[];
}

/** A configuration file that is not used, and what is wrong with it. */
export interface SkippedFile {
  file: string;
  reason: string;
}

/** Bytes of one configuration file; real ones are below 10 KiB. */
const maxFileBytes = 1 << 20;
/** Files looked at in one directory, plugins in one network. */
const maxFiles = 256;
const maxPlugins = 64;

/** What libcni accepts as the name of a network; it becomes part of paths in plugins' data directories. */
const networkName = /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/;

/** True when `version` is `least` or newer. */
export function atLeast(version: CniVersion, least: CniVersion): boolean {
  return cniVersions.indexOf(version) >= cniVersions.indexOf(least);
}

/**
 * Reads the text of one configuration file. A `.conflist` holds a list of plugins, any other extension
 * a single plugin, which becomes a list of one (as libcni does). `extra` are plugins from the folder
 * beside the file (CNI 1.1, `loadOnlyInlinedPlugins`).
 * @throws BerthError `invalid`, its message naming the member that is wrong
 */
export function parseConf(text: string, isList: boolean, extra: readonly PluginConf[] = []): NetworkConf {
  const raw = parseObject(text);
  if (!isList && 'plugins' in raw) throw bad('has "plugins", so its name must end in .conflist');
  if (typeof raw.name !== 'string' || !networkName.test(raw.name))
    throw bad('"name" must be letters, digits, "_", "." or "-" and start with a letter or digit');
  const listed = isList ? parsePlugins(raw) : [parsePlugin(raw, 'the file')];
  const plugins = [...listed, ...extra];
  if (plugins.length === 0) throw bad('"plugins" is missing or empty');
  return {
    name: raw.name,
    cniVersion: chooseVersion(raw),
    disableGC: readFlag(raw, 'disableGC'),
    plugins,
  };
}

/** Reads the text of one plugin's configuration (a file in the folder named after the network). */
function parsePluginConf(text: string): PluginConf {
  return parsePlugin(parseObject(text), 'the file');
}

function bad(problem: string): BerthError {
  return new BerthError('invalid', problem);
}

function parseObject(text: string): JsonObject {
  let raw: unknown;
  try {
    raw = JSON.parse(text);
  } catch (e: unknown) {
    throw bad(text.trim() === '' ? 'is empty' : `is not JSON: ${messageOf(e)}`);
  }
  if (!isJsonObject(raw)) throw bad('is not a JSON object');
  return raw;
}

function parsePlugins(raw: JsonObject): PluginConf[] {
  if (raw.plugins === undefined) {
    if (readFlag(raw, 'loadOnlyInlinedPlugins'))
      throw bad('"loadOnlyInlinedPlugins" is true, but "plugins" is missing');
    return [];
  }
  if (!Array.isArray(raw.plugins) || raw.plugins.length === 0)
    throw bad('"plugins" must be a list of plugins');
  if (raw.plugins.length > maxPlugins) throw bad(`"plugins" has more than ${maxPlugins} entries`);
  return raw.plugins.map((p: unknown, i) => {
    if (!isJsonObject(p)) throw bad(`plugins[${i}] is not an object`);
    return parsePlugin(p, `plugins[${i}]`);
  });
}

function parsePlugin(raw: JsonObject, where: string): PluginConf {
  const { type, capabilities } = raw;
  if (typeof type !== 'string' || type === '') throw bad(`${where}: "type" (the plugin's name) is missing`);
  // The name is looked up in bin_dirs: it must not lead elsewhere.
  if (type.includes('/') || type.includes('\0') || type === '.' || type === '..' || type.length > 255)
    throw bad(`${where}: "type" must be the name of a program, without a path`);
  if (capabilities !== undefined && !isJsonObject(capabilities))
    throw bad(`${where}: "capabilities" must be an object of booleans`);
  const enabled = Object.entries(capabilities ?? {})
    .filter(([, on]) => on === true)
    .map(([name]) => name);
  return { type, capabilities: enabled, conf: raw };
}

/** The newest version that both the file and berth know (CNI 1.1 SPEC, "Version considerations"). */
function chooseVersion(raw: JsonObject): CniVersion {
  const listed: unknown = raw.cniVersions ?? [];
  if (!Array.isArray(listed)) throw bad('"cniVersions" must be a list of strings');
  const offered: unknown[] = [raw.cniVersion, ...listed];
  const best = cniVersions.findLast((v) => offered.includes(v));
  if (best !== undefined) return best;
  const known = `${cniVersions[0]} to ${cniVersions.at(-1)}`;
  throw bad(
    raw.cniVersion === undefined && listed.length === 0
      ? `"cniVersion" is missing (berth knows ${known})`
      : `"cniVersion" is none that berth knows (${known})`,
  );
}

/** A boolean, or its name as a string, which libcni takes too. */
function readFlag(raw: JsonObject, key: string): boolean {
  const value = raw[key];
  const text = typeof value === 'string' ? value.toLowerCase() : value;
  if (text === undefined || text === false || text === 'false') return false;
  if (text === true || text === 'true') return true;
  throw bad(`"${key}" must be true or false`);
}

/**
 * Looks for the network in a configuration directory: `*.conflist`, `*.conf` and `*.json`, the first
 * valid one in byte order of file names (what containerd and CRI-O do, so the kubelet's users expect it).
 * A broken file is skipped with its reason. A directory that does not exist holds nothing.
 * @throws the system's error when the directory cannot be read
 */
export async function loadConf(dir: string): Promise<LoadedConf> {
  const skipped: SkippedFile[] = [];
  for (const name of await confFiles(dir, ['.conflist', '.conf', '.json'])) {
    const file = join(dir, name);
    try {
      return { network: await loadFile(file), file, skipped };
    } catch (e: unknown) {
      // Gone between listing and reading: the file was replaced, and the watcher sees that too.
      if (!isErrno(e, 'ENOENT')) skipped.push({ file, reason: messageOf(e) });
    }
  }
  return { skipped };
}

async function loadFile(file: string): Promise<NetworkConf> {
  const text = await readBounded(file);
  const isList = extname(file) === '.conflist';
  if (!isList) return parseConf(text, isList);
  const raw = parseObject(text);
  if (readFlag(raw, 'loadOnlyInlinedPlugins')) return parseConf(text, isList);
  return parseConf(text, isList, await siblingPlugins(file, raw.name));
}

/** Plugins that CNI 1.1 lets a distributor drop into `<conf_dir>/<network name>/*.conf`. */
async function siblingPlugins(file: string, name: unknown): Promise<PluginConf[]> {
  if (typeof name !== 'string' || !networkName.test(name)) return [];
  const dir = join(file, '..', name);
  const plugins: PluginConf[] = [];
  for (const entry of await confFiles(dir, ['.conf'])) {
    try {
      plugins.push(parsePluginConf(await readBounded(join(dir, entry))));
    } catch (e: unknown) {
      throw bad(`${join(basename(dir), entry)}: ${messageOf(e)}`);
    }
  }
  return plugins;
}

async function confFiles(dir: string, extensions: readonly string[]): Promise<string[]> {
  try {
    const entries = await readdir(dir, { withFileTypes: true });
    return entries
      .filter((e) => !e.isDirectory() && extensions.includes(extname(e.name)))
      .map((e) => e.name)
      .sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
      .slice(0, maxFiles);
  } catch (e: unknown) {
    if (isErrno(e, 'ENOENT', 'ENOTDIR')) return [];
    throw e;
  }
}

async function readBounded(file: string): Promise<string> {
  // O_NONBLOCK: opening a FIFO that someone left here would otherwise hold a thread of libuv for ever.
  await using handle = await open(file, constants.O_RDONLY | constants.O_NONBLOCK);
  const info = await handle.stat();
  if (!info.isFile()) throw bad('is not a regular file');
  const buffer = Buffer.alloc(Math.min(info.size, maxFileBytes) + 1);
  let length = 0;
  while (length < buffer.length) {
    const { bytesRead } = await handle.read(buffer, length, buffer.length - length, length);
    if (bytesRead === 0) break;
    length += bytesRead;
  }
  if (length > maxFileBytes) throw bad(`is larger than ${maxFileBytes} bytes`);
  return buffer.toString('utf8', 0, length);
}
