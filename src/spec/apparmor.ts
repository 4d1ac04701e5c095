import { readFile } from 'node:fs/promises';
import type { ContainerSecurity } from '../container/config.ts';
import { BerthError, invalid, messageOf } from '../errors.ts';
import type { HostFacts } from './host.ts';

/** A line for each loaded profile: its name, which may have spaces, and its mode in brackets. */
const LOADED = '/sys/kernel/security/apparmor/profiles';
const FIELD = 'config.linux.security_context.apparmor';
/** How annotations of old pods spell a profile of the node's. */
const PREFIX = 'localhost/';

/**
 * The profile for a container's process; undefined for none. Berth loads no profile of its own, so
 * RuntimeDefault adds nothing.
 *
 * @throws BerthError `invalid`: the pod names a profile, and the node has no AppArmor
 */
export function apparmorProfile(
  { privileged, apparmor }: Pick<ContainerSecurity, 'privileged' | 'apparmor'>,
  host: Pick<HostFacts, 'apparmor'>,
): string | undefined {
  if (privileged || apparmor.type !== 'localhost') return undefined;
  if (!host.apparmor) throw invalid(FIELD, 'names a profile, but this host has no AppArmor');
  const name = apparmor.localhostRef;
  return name.startsWith(PREFIX) ? name.slice(PREFIX.length) : name;
}

/**
 * Refuses a profile that is not loaded: the OCI runtime's own error would not say which.
 *
 * @throws BerthError `invalid`; `precondition` when the kernel does not tell what is loaded
 */
export async function checkProfileLoaded(
  profile: string | undefined,
  loaded: string = LOADED,
): Promise<void> {
  if (profile === undefined) return;
  const text = await readFile(loaded, 'utf8').catch((e: unknown) => {
    throw new BerthError('precondition', `AppArmor: ${messageOf(e)}`, { cause: e });
  });
  if (loadedProfiles(text).has(profile)) return;
  throw invalid(
    `${FIELD}.localhost_ref`,
    `the profile ${JSON.stringify(profile)} is not loaded on this node`,
  );
}

/** @param text of the kernel's list */
export function loadedProfiles(text: string): Set<string> {
  return new Set([...text.matchAll(/^(.+) \(\w+\)$/gm)].map(([, name = '']) => name));
}
