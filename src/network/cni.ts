import { statfs } from 'node:fs/promises';
import { BerthError, during, isErrno, kindOf, messageOf } from '../errors.ts';
import type { Logger } from '../log.ts';
import { type Attachment, newAttachment, type PodNetworkRequest } from './attachment.ts';
import { atLeast, type NetworkConf, type PluginConf } from './conf.ts';
import type { ConfState, ConfWatcher } from './conf-watch.ts';
import type { JsonObject } from './json.ts';
import {
  type CniCommand,
  cniErrors,
  execPlugin,
  findPlugin,
  PluginError,
  type PluginHost,
  type PluginTarget,
  pluginStdin,
} from './plugin.ts';
import { parseResult, podIps } from './result.ts';

/** Whether pods can get a network; `message` tells the operator what to do when not. */
export interface NetworkStatus {
  ready: boolean;
  /** Empty when ready, else the reason that the kubelet knows. */
  reason: '' | 'NetworkPluginNotReady';
  message: string;
}

/** What a {@link Cni} is made of. */
export interface CniOptions {
  watcher: ConfWatcher;
  host: PluginHost;
  log: Logger;
  /** Milliseconds that one plugin may take for ADD, DEL or GC; default one minute. */
  timeoutMs?: number;
  /** Milliseconds that one plugin may take for STATUS; default five seconds. */
  statusTimeoutMs?: number;
  /** Milliseconds for which an answer to STATUS is good; default four seconds. */
  statusMaxAgeMs?: number;
}

/** What the plugins of the network with configuration `key` said to STATUS, and when (monotonic milliseconds). */
interface StatusAnswer {
  key: string;
  answer: string | undefined;
  at: number;
  asking?: Promise<string> | undefined;
}

/** Name of the interface in every pod (the kubelet and the stats expect it). */
const podInterface = 'eth0';
/** `f_type` of nsfs, where a pinned or open namespace is (linux/magic.h), and of procfs on kernels before 3.19. */
const namespaceFs: readonly number[] = [0x6e736673, 0x9fa0];
/** STATUS and GC are about the network, not about a container. */
const noTarget: PluginTarget = { containerId: '', netns: '', ifName: '', args: '' };

/**
 * Pod networking through CNI plugins, one network per pod.
 *
 * ```
 * prepare → (store the attachment) → add → (store it again, with its result) … del, until it succeeds
 * ```
 * Calls for one sandbox must not overlap; the caller holds the sandbox's lock.
 */
export class Cni {
  readonly #options: Required<CniOptions>;
  readonly #adding = new Set<Promise<unknown>>();
  #collecting: Promise<void> = Promise.resolve();
  readonly #closed = new AbortController();
  #status: StatusAnswer | undefined;

  constructor(options: CniOptions) {
    this.#options = { timeoutMs: 60_000, statusTimeoutMs: 5_000, statusMaxAgeMs: 4_000, ...options };
  }

  /**
   * Chooses the network for a pod and checks what the pod asks of it; nothing is made yet.
   * @throws BerthError `unavailable` when there is no network, `invalid` for a wrong field of the request
   */
  async prepare(pod: PodNetworkRequest): Promise<Attachment> {
    const state = await this.#options.watcher.refresh();
    if (state.network === undefined)
      throw new BerthError('unavailable', `network is not ready: ${this.#whyNone(state)}`);
    const attachment = newAttachment(pod, state.network, podInterface);
    for (const capability of ['portMappings', 'bandwidth'])
      if (
        Object.hasOwn(attachment.capabilityArgs, capability) &&
        !state.network.plugins.some((p) => p.capabilities.includes(capability))
      )
        this.#options.log.warn(
          { sandbox: pod.sandboxId, network: state.network.name, capability },
          'no plugin of the network has this capability; the pod runs without it',
        );
    return attachment;
  }

  /**
   * Runs the chain with ADD. When that fails the whole chain gets DEL, under its own deadline and even
   * when `signal` is what ended ADD; the caller still keeps the attachment until `del` has succeeded,
   * since that DEL may fail too (it is logged).
   * @returns the attachment with `result` and `ips`
   * @throws PluginError or BerthError naming network and plugin
   */
  async add(attachment: Attachment, signal?: AbortSignal): Promise<Attachment> {
    await this.#collecting;
    signal?.throwIfAborted();
    const added = this.#add(attachment, signal);
    this.#adding.add(added);
    try {
      return await added;
    } finally {
      this.#adding.delete(added);
    }
  }

  async #add(attachment: Attachment, signal?: AbortSignal): Promise<Attachment> {
    const { network } = attachment;
    const target = { ...targetOf(attachment), netns: attachment.netnsPath };
    let result: JsonObject | undefined;
    try {
      for (const plugin of network.plugins) {
        const inject = result === undefined ? {} : { prevResult: result };
        const stdin = pluginStdin(network, plugin, inject, attachment.capabilityArgs);
        const stdout = await this.#exec('ADD', plugin, stdin, target, signal);
        result = parseAnswer(plugin, stdout, network);
      }
      if (result === undefined) throw new BerthError('internal', 'the network has no plugins');
      return { ...attachment, result, ips: podIps(result, attachment.ifName) };
    } catch (e: unknown) {
      const undone = result === undefined ? attachment : { ...attachment, result };
      await this.del(undone).catch((err: unknown) =>
        this.#options.log.warn({ err, sandbox: attachment.sandboxId }, 'CNI DEL after a failed ADD failed'),
      );
      throw inNetwork(network, e);
    }
  }

  /**
   * Runs the chain with DEL, in reverse, with the configuration and result of its ADD. It can be called
   * again, before ADD, after a failed ADD, and when the namespace is gone (then `CNI_NETNS` is empty).
   *
   * Unlike libcni it goes on after a plugin has failed: a broken portmap or a missing binary must not
   * keep the pod's address taken for ever. The whole chain runs again with the next call.
   * @throws the first failure, naming network and plugin; the caller calls again later
   */
  async del(attachment: Attachment, signal?: AbortSignal): Promise<void> {
    const { network, result } = attachment;
    const netns = (await isNamespace(attachment.netnsPath)) ? attachment.netnsPath : '';
    const target = { ...targetOf(attachment), netns };
    // prevResult came to DEL with 0.4.0.
    const inject = result !== undefined && atLeast(network.cniVersion, '0.4.0') ? { prevResult: result } : {};
    const failures: unknown[] = [];
    for (const plugin of network.plugins.toReversed()) {
      signal?.throwIfAborted();
      try {
        const stdin = pluginStdin(network, plugin, inject, attachment.capabilityArgs);
        await this.#exec('DEL', plugin, stdin, target, signal);
      } catch (e: unknown) {
        if (!this.#isGone(e, attachment, netns)) failures.push(e);
      }
    }
    if (failures.length > 0) throw joined(network, failures);
  }

  /**
   * Failures of DEL after which nothing is left to do: the plugin does not know the container, or it
   * insists on a namespace that no longer exists (Cilium after a reboot), which no retry can bring back.
   */
  #isGone(e: unknown, attachment: Attachment, netns: string): boolean {
    if (!(e instanceof PluginError)) return false;
    const gone =
      e.code === cniErrors.unknownContainer || (e.code === cniErrors.invalidEnvironment && netns === '');
    if (gone)
      this.#options.log.info({ err: e, sandbox: attachment.sandboxId }, 'CNI DEL had nothing left to do');
    return gone;
  }

  /**
   * Whether the next pod can have a network: a valid configuration, all its plugins installed, and (from
   * 1.1.0 on) no plugin that answers STATUS with an error. Answers from memory while STATUS is asked
   * again, so a plugin that hangs does not hold up the kubelet.
   */
  async status(): Promise<NetworkStatus> {
    const state = await this.#options.watcher.refresh();
    const { network } = state;
    const message =
      network === undefined ? this.#whyNone(state) : await this.#whyNotReady(network, state.file ?? '');
    return message === ''
      ? { ready: true, reason: '', message: '' }
      : { ready: false, reason: 'NetworkPluginNotReady', message };
  }

  #whyNone(state: ConfState): string {
    const { dir } = this.#options.watcher;
    if (state.problem !== undefined) return `cannot read ${dir}: ${state.problem}`;
    const [first, ...rest] = state.skipped;
    if (first === undefined)
      return `no CNI configuration (*.conflist, *.conf, *.json) in ${dir}; install a network plugin or write one`;
    const more = rest.length > 0 ? ` (and ${rest.length} more)` : '';
    return `no valid CNI configuration in ${dir}: ${first.file}: ${first.reason}${more}`;
  }

  async #whyNotReady(network: NetworkConf, file: string): Promise<string> {
    const { binDirs } = this.#options.host;
    for (const { type } of network.plugins) {
      try {
        await findPlugin(type, binDirs);
      } catch (e: unknown) {
        return `network "${network.name}" of ${file}: ${messageOf(e)}`;
      }
    }
    return atLeast(network.cniVersion, '1.1.0') ? this.#askStatus(network) : '';
  }

  /** The last answer to STATUS, refreshed behind the caller's back when old; waited for when there is none. */
  async #askStatus(network: NetworkConf): Promise<string> {
    const key = JSON.stringify(network);
    if (this.#status?.key !== key) this.#status = { key, answer: undefined, at: Number.NEGATIVE_INFINITY };
    const known = this.#status;
    // One question at a time, or a plugin that hangs would gather processes.
    if (known.asking === undefined && performance.now() - known.at >= this.#options.statusMaxAgeMs)
      known.asking = this.#runStatus(network).then((answer) => {
        known.answer = answer;
        known.at = performance.now();
        known.asking = undefined;
        return answer;
      });
    return known.answer ?? (await known.asking) ?? '';
  }

  /** Empty when every plugin is content, else what the first one said; never rejects. */
  async #runStatus(network: NetworkConf): Promise<string> {
    try {
      for (const plugin of network.plugins) {
        const stdin = pluginStdin(network, plugin, {}, {});
        const timeoutMs = this.#options.statusTimeoutMs;
        await execPlugin('STATUS', plugin.type, stdin, noTarget, this.#options.host, {
          timeoutMs,
          signal: this.#closed.signal,
        });
      }
      return '';
    } catch (e: unknown) {
      return messageOf(inNetwork(network, e));
    }
  }

  /**
   * Tells the plugins of the current network which attachments are alive, so that they free the rest
   * (1.1.0 and newer, unless the configuration forbids it). Plugins' own data is never touched. Only for
   * a daemon that is alone on its network: what another runtime or a second berthd attached to a network
   * of the same name would be freed too.
   *
   * ADD waits meanwhile: an attachment made after `alive` was asked would be collected.
   * @param alive all attachments on record, those not added yet included
   * @throws the first failure; the others are in its message
   */
  async gc(alive: () => readonly Attachment[]): Promise<void> {
    const collected = this.#collecting.then(async () => {
      await Promise.allSettled(this.#adding);
      await this.#gc(alive());
    });
    this.#collecting = collected.catch(() => undefined);
    await collected;
  }

  async #gc(alive: readonly Attachment[]): Promise<void> {
    const { network } = await this.#options.watcher.refresh();
    if (network === undefined || network.disableGC || !atLeast(network.cniVersion, '1.1.0')) return;
    const attachments = alive
      .filter((a) => a.network.name === network.name)
      .map((a) => ({ containerID: a.sandboxId, ifname: a.ifName }));
    // libcni sends both names, since early plugins were written after a misprint in the specification.
    const inject = { 'cni.dev/valid-attachments': attachments, 'cni.dev/attachments': attachments };
    const failures: unknown[] = [];
    for (const plugin of network.plugins) {
      try {
        await this.#exec('GC', plugin, pluginStdin(network, plugin, inject, {}), noTarget);
      } catch (e: unknown) {
        failures.push(e);
      }
    }
    if (failures.length > 0) throw joined(network, failures);
  }

  /** Ends what runs behind callers' backs (STATUS); ADD and DEL end by their own signals. */
  close(): void {
    this.#closed.abort();
  }

  #exec(
    command: CniCommand,
    plugin: PluginConf,
    stdin: string,
    target: PluginTarget,
    signal?: AbortSignal,
  ): Promise<string> {
    const { host, timeoutMs } = this.#options;
    return execPlugin(command, plugin.type, stdin, target, host, { timeoutMs, ...(signal && { signal }) });
  }
}

function targetOf(attachment: Attachment): Omit<PluginTarget, 'netns'> {
  return { containerId: attachment.sandboxId, ifName: attachment.ifName, args: attachment.args };
}

function parseAnswer(plugin: PluginConf, stdout: string, network: NetworkConf): JsonObject {
  try {
    return parseResult(stdout, network.cniVersion);
  } catch (e: unknown) {
    throw new BerthError(kindOf(e), `CNI plugin "${plugin.type}" ${messageOf(e)}`, { cause: e });
  }
}

function inNetwork(network: NetworkConf, e: unknown): BerthError {
  return during(`network "${network.name}"`, e);
}

function joined(network: NetworkConf, failures: readonly unknown[]): BerthError {
  const [first] = failures;
  const text = failures.map(messageOf).join('; ');
  return new BerthError(kindOf(first), `network "${network.name}": ${text}`, { cause: first });
}

/**
 * Whether a namespace is pinned at the path. After a reboot, or an unmount that a crash cut short, the
 * path is missing or a plain file: plugins fail on the latter, but must accept no namespace at all (SPEC, "DEL").
 */
async function isNamespace(path: string): Promise<boolean> {
  try {
    return namespaceFs.includes((await statfs(path)).type);
  } catch (e: unknown) {
    if (isErrno(e, 'ENOENT', 'ENOTDIR')) return false;
    throw e;
  }
}
