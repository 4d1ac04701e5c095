import { randomInt } from 'node:crypto';
import { access, open, readFile } from 'node:fs/promises';
import { BerthError, invalid, isErrno, messageOf } from '../errors.ts';
import type { NamespaceOptions, SelinuxOptions } from '../sandbox/config.ts';

/** What SELinux calls a container's process and its files; an absent one is left to the policy. */
export interface SelinuxLabels {
  process?: string;
  /** Of the root file system, of tmpfs and of volumes that are relabelled. */
  mount?: string;
}

/** Where SELinux is found; other places in tests. */
export interface SelinuxPlaces {
  /** selinuxfs(5)'s mount point. */
  selinuxfs: string;
  /** The daemon's own label, which is `kernel` until a policy is loaded. */
  current: string;
  /** The directory of selinux_config(5). */
  config: string;
}

const PLACES: SelinuxPlaces = {
  selinuxfs: '/sys/fs/selinux',
  current: '/proc/self/attr/current',
  config: '/etc/selinux',
};

/** `user:role:type:level`, of which the last part may have colons. */
type Label = Record<'user' | 'role' | 'type' | 'level', string>;

/** Of sensitivities and categories: `s0:c1,c2`, `s0-s0:c0.c1023`. */
const LEVEL = /^[A-Za-z0-9_.,:-]{1,255}$/;
const WORD = /^[A-Za-z0-9_.-]{1,255}$/;
/** Categories of the policies of all distributions. */
const CATEGORIES = 1024;

/** Whose labels are asked for. */
export interface Labelled {
  selinux?: SelinuxOptions;
  privileged: boolean;
  namespaces: NamespaceOptions;
}

/** SELinux of the node: with which labels containers run. */
export class Selinux {
  /** Why no labels are set; undefined where they are. */
  readonly unavailable: string | undefined;
  readonly #selinuxfs: string;
  readonly #base: { process: Label; mount: Label } | undefined;

  private constructor(base: { process: Label; mount: Label } | string, selinuxfs: string) {
    this.unavailable = typeof base === 'string' ? base : undefined;
    this.#base = typeof base === 'string' ? undefined : base;
    this.#selinuxfs = selinuxfs;
  }

  /** @param wanted false: as on a node without SELinux */
  static async detect(wanted: boolean, places: SelinuxPlaces = PLACES): Promise<Selinux> {
    return new Selinux(
      wanted ? await baseLabels(places) : 'selinux = false in the configuration',
      places.selinuxfs,
    );
  }

  /**
   * The labels for a pod, or for a container in a pod whose `level` is given. Unless the pod names a level it
   * gets two categories of its own out of 1024, which keep it from other pods' files.
   *
   * Privileged containers are not confined, nor are those that share the node's processes or IPC and ask for
   * no label: they are there to act on what the labels would keep from them.
   *
   * @param taken labels of other pods
   * @param elsewhere why the node's labels do not count for it: it is in a virtual machine
   * @throws BerthError `unimplemented`: the node cannot set what is asked for; `invalid`: no such label
   */
  async labels(
    asked: Labelled,
    field: string,
    { level, taken = [], elsewhere }: { level?: string; taken?: Iterable<string>; elsewhere?: string } = {},
  ): Promise<SelinuxLabels> {
    const options = checkOptions(asked.selinux, field);
    const unavailable = elsewhere ?? this.unavailable;
    if (this.#base === undefined || unavailable !== undefined) {
      refuse(asked, options, field, unavailable);
      return {};
    }
    const { user, ...rest } = options;
    const own = { level: options.level ?? level ?? freeLevel(taken) };
    const mount = format({ ...this.#base.mount, ...(user === undefined ? {} : { user }), ...own });
    await this.#check(mount, field);
    const { pid, ipc } = asked.namespaces;
    const isOfNode = pid === 'node' || ipc === 'node';
    if (asked.privileged || (isOfNode && Object.keys(options).length === 0)) return { mount };
    const process = format({
      ...this.#base.process,
      ...(user === undefined ? {} : { user }),
      ...rest,
      ...own,
    });
    await this.#check(process, field);
    return { process, mount };
  }

  /** The kernel knows what its policy has: a label that it does not know would fail later, and say less. */
  async #check(label: string, field: string): Promise<void> {
    const file = await open(`${this.#selinuxfs}/context`, 'r+');
    try {
      await file.write(label);
    } catch (e: unknown) {
      if (!isErrno(e, 'EINVAL')) throw e;
      throw invalid(field, `the node's SELinux policy does not allow the label ${label}`);
    } finally {
      await file.close();
    }
  }
}

/** The part of a label that keeps pods from each other. */
export function levelOf(label: string): string {
  return parse(label).level;
}

/** The policy's labels for containers (lxc_contexts), or why there are none. */
async function baseLabels({ selinuxfs, current, config }: SelinuxPlaces): Promise<BaseLabels | string> {
  const enabled = await access(`${selinuxfs}/enforce`).then(
    () => true,
    () => false,
  );
  if (!enabled) return 'this host has no SELinux';
  try {
    const own = (await readFile(current, 'utf8')).replace(/[\0\n]+$/, '');
    if (own === '' || own === 'kernel') return 'this host has no SELinux policy loaded';
    const text = await readFile(`${config}/config`, 'utf8');
    const policy = /^\s*SELINUXTYPE\s*=\s*(\S+)/m.exec(text)?.[1] ?? 'targeted';
    const contexts = await readFile(`${config}/${policy}/contexts/lxc_contexts`, 'utf8');
    const [process, mount] = ['process', 'file'].map(
      (key) => new RegExp(`^\\s*${key}\\s*=\\s*"([^"]+)"`, 'm').exec(contexts)?.[1],
    );
    if (process === undefined || mount === undefined)
      return `the SELinux policy ${policy} has no types for containers (lxc_contexts)`;
    return { process: parse(process), mount: parse(mount) };
  } catch (e: unknown) {
    return `SELinux: ${messageOf(e)}`;
  }
}

type BaseLabels = { process: Label; mount: Label };

function parse(label: string): Label {
  const [user = '', role = '', type = '', ...level] = label.split(':');
  return { user, role, type, level: level.join(':') };
}

function format({ user, role, type, level }: Label): string {
  return [user, role, type, level].join(':');
}

/** What is asked for, without what is left empty. */
function checkOptions(options: SelinuxOptions | undefined, field: string): Partial<Label> {
  const { user = '', role = '', type = '', level = '' } = options ?? {};
  const given = Object.entries({ user, role, type, level }).filter(([, value]) => value !== '');
  for (const [name, value] of given) {
    if (!(name === 'level' ? LEVEL : WORD).test(value))
      throw invalid(`${field}.${name}`, 'must be a word of an SELinux label');
  }
  return Object.fromEntries(given);
}

/**
 * Running a pod that insists on being confined without its label would break what it was promised. `spc_t` is
 * the type of what is not confined, which agents of the node ask for on every node, SELinux or not; a privileged
 * container is not confined either.
 *
 * Requests to relabel volumes are no insisting: the kubelet makes them for every volume of its own.
 */
function refuse({ privileged }: Labelled, options: Partial<Label>, field: string, why = ''): void {
  const [first] = Object.keys(options);
  if (first === undefined || privileged || options.type === 'spc_t') return;
  throw new BerthError(
    'unimplemented',
    `${field}.${first}: SELinux labels cannot be set: ${why}; leave seLinuxOptions out, or ask for the type spc_t`,
  );
}

/** Two categories that no other pod has. */
function freeLevel(labels: Iterable<string>): string {
  const taken = new Set([...labels].map(levelOf));
  for (;;) {
    const [a, b] = [randomInt(CATEGORIES), randomInt(CATEGORIES)];
    const level = `s0:c${Math.min(a, b)},c${Math.max(a, b)}`;
    if (a !== b && !taken.has(level)) return level;
  }
}
