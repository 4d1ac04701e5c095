import { access, readFile } from 'node:fs/promises';
import type { ContainerSecurity } from '../container/config.ts';
import { BerthError, invalid, isErrno, messageOf } from '../errors.ts';
import type { Logger } from '../log.ts';
import { runOk } from '../sys/exec.ts';
import { DEFAULT_PROFILE, defaultProfile } from './apparmor-profile.ts';

const FIELD = 'config.linux.security_context.apparmor';
/** How annotations of old pods spell a profile of the node's. */
const PREFIX = 'localhost/';
/** Compiling a profile takes a tenth of a second, and many times that on a busy node. */
const LOAD_MS = 60_000;
const ABI = 'abi/3.0';

/** Where AppArmor is found; other places in tests. */
export interface AppArmorPlaces {
  /** `Y` where the kernel enforces profiles. */
  enabled: string;
  /** A line for each loaded profile: its name, which may have spaces, and its mode in brackets. */
  profiles: string;
  /** The directory of the node's profiles. */
  config: string;
  /** The program that loads profiles, of Debian's package apparmor. */
  parser: string;
}

const PLACES: AppArmorPlaces = {
  enabled: '/sys/module/apparmor/parameters/enabled',
  profiles: '/sys/kernel/security/apparmor/profiles',
  config: '/etc/apparmor.d',
  parser: '/sbin/apparmor_parser',
};

/** AppArmor of the node: which profile a container's process gets. */
export class AppArmor {
  readonly enabled: boolean;
  readonly #places: AppArmorPlaces;
  readonly #log: Logger;
  #complained = false;

  private constructor(enabled: boolean, places: AppArmorPlaces, log: Logger) {
    this.enabled = enabled;
    this.#places = places;
    this.#log = log;
  }

  static async detect(log: Logger, places: AppArmorPlaces = PLACES): Promise<AppArmor> {
    const enabled = await readFile(places.enabled, 'utf8').catch((e: unknown) => {
      if (isErrno(e, 'ENOENT')) return 'N';
      throw e;
    });
    return new AppArmor(enabled.trim() === 'Y', places, log);
  }

  /**
   * The profile for a container's process; undefined for none. One that the pod names must be loaded. The
   * default one is for all others but privileged ones, and is loaded when it is not, which may be at any time:
   * the node's tools unload what is in none of their files.
   *
   * A pod that says nothing of AppArmor runs without where the default profile cannot be loaded.
   *
   * @param elsewhere why the node's profiles do not count for it: it is in a virtual machine
   * @throws BerthError `invalid`: the node cannot do what the pod insists on; `precondition` when the kernel
   *   does not tell what is loaded
   */
  async profileFor(
    { privileged, apparmor }: Pick<ContainerSecurity, 'privileged' | 'apparmor'>,
    elsewhere?: string,
  ): Promise<string | undefined> {
    if (apparmor?.type === 'unconfined') return undefined;
    if (elsewhere !== undefined) {
      if (apparmor?.type !== 'localhost') return undefined;
      throw invalid(FIELD, `names a profile of the node, but ${elsewhere}`);
    }
    if (!this.enabled) {
      if (apparmor === undefined) return undefined;
      throw invalid(FIELD, 'asks for a profile, but this host has no AppArmor');
    }
    if (apparmor?.type === 'localhost') return await this.#named(apparmor.localhostRef);
    if (privileged) return undefined;
    try {
      await this.#loadDefault();
      return DEFAULT_PROFILE;
    } catch (e: unknown) {
      if (apparmor !== undefined) throw invalid(FIELD, messageOf(e));
      if (!this.#complained) this.#log.warn({ reason: messageOf(e) }, 'containers run without AppArmor');
      this.#complained = true;
      return undefined;
    }
  }

  /** The OCI runtime's own error would not say which profile is missing. */
  async #named(ref: string): Promise<string> {
    const name = ref.startsWith(PREFIX) ? ref.slice(PREFIX.length) : ref;
    if ((await this.#loaded()).has(name)) return name;
    throw invalid(`${FIELD}.localhost_ref`, `the profile ${JSON.stringify(name)} is not loaded on this node`);
  }

  async #loadDefault(): Promise<void> {
    if ((await this.#loaded()).has(DEFAULT_PROFILE)) return;
    const { parser, config } = this.#places;
    const hasAbi = await access(`${config}/${ABI}`).then(
      () => true,
      () => false,
    );
    const options = {
      input: defaultProfile(hasAbi ? ABI : undefined),
      timeoutMs: LOAD_MS,
      maxOutput: 65_536,
    };
    try {
      // Replacing is adding as well, and no error when another container's making was faster.
      await runOk([parser, '--replace', '--base', config, '--skip-cache'], options);
    } catch (e: unknown) {
      const hint = isErrno(e, 'ENOENT') ? ` (Debian: apt-get install apparmor)` : '';
      throw new BerthError('precondition', `the default profile cannot be loaded: ${messageOf(e)}${hint}`, {
        cause: e,
      });
    }
  }

  async #loaded(): Promise<Set<string>> {
    const text = await readFile(this.#places.profiles, 'utf8').catch((e: unknown) => {
      throw new BerthError('precondition', `AppArmor: ${messageOf(e)}`, { cause: e });
    });
    return loadedProfiles(text);
  }
}

/** @param text of the kernel's list */
export function loadedProfiles(text: string): Set<string> {
  return new Set([...text.matchAll(/^(.+) \(\w+\)$/gm)].map(([, name = '']) => name));
}
