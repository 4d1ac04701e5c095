import { constants } from 'node:os';
import { BerthError } from '../errors.ts';
import type { HostFacts } from './host.ts';
import { parseOci } from './json.ts';
import type { LinuxSeccomp, SeccompArg, SeccompRule } from './types.ts';

/** A condition on a rule: empty lists and an absent kernel match always. */
export interface Filter {
  caps: string[];
  arches: string[];
  minKernel: string;
}

/** No condition. */
export const ALWAYS: Filter = { caps: [], arches: [], minKernel: '' };

/** A rule with the conditions under which it holds. */
export interface ProfileRule extends SeccompRule {
  includes: Filter;
  excludes: Filter;
}

/** A profile in the format of Docker and containers-common, of which the OCI's own is a subset. */
export interface SeccompProfile {
  defaultAction: string;
  defaultErrnoRet?: number;
  architectures: string[];
  archMap: { architecture: string; subArchitectures: string[] }[];
  flags: string[];
  listenerPath: string;
  listenerMetadata: string;
  rules: ProfileRule[];
}

const X32 = 'SCMP_ARCH_X32';

/** libseccomp's name of the architecture that Go calls so. */
const NATIVE: Record<string, string> = {
  amd64: 'SCMP_ARCH_X86_64',
  arm64: 'SCMP_ARCH_AARCH64',
  arm: 'SCMP_ARCH_ARM',
  '386': 'SCMP_ARCH_X86',
  riscv64: 'SCMP_ARCH_RISCV64',
  ppc64le: 'SCMP_ARCH_PPC64LE',
  s390x: 'SCMP_ARCH_S390X',
};

/**
 * Parses and checks the JSON text of a profile. `name` says in errors whose profile it is. Unknown
 * members are ignored; wrong types are refused, since a rule that is silently lost loosens the filter.
 */
export function parseSeccompProfile(text: string, name: string): SeccompProfile {
  const at = new Reader(name);
  let json: unknown;
  try {
    json = parseOci(text);
  } catch (e: unknown) {
    throw new BerthError('invalid', `${name}: not JSON`, { cause: e });
  }
  const top = at.object(json, 'profile');
  const defaultErrno = at.errno(top, 'defaultErrno', 'defaultErrnoRet');
  return {
    defaultAction: at.action(top.defaultAction, 'defaultAction'),
    ...(defaultErrno === undefined ? {} : { defaultErrnoRet: defaultErrno }),
    architectures: at.strings(top.architectures, 'architectures'),
    archMap: at.list(top.archMap, 'archMap').map((entry) => {
      const o = at.object(entry, 'archMap');
      return {
        architecture: at.string(o.architecture, 'archMap.architecture'),
        subArchitectures: at.strings(o.subArchitectures, 'archMap.subArchitectures'),
      };
    }),
    flags: at.strings(top.flags, 'flags'),
    listenerPath: at.string(top.listenerPath ?? '', 'listenerPath'),
    listenerMetadata: at.string(top.listenerMetadata ?? '', 'listenerMetadata'),
    rules: at.list(top.syscalls, 'syscalls').map((rule, i) => parseRule(at, rule, `syscalls[${i}]`)),
  };
}

function parseRule(at: Reader, rule: unknown, path: string): ProfileRule {
  const o = at.object(rule, path);
  const names = at.strings(o.names, `${path}.names`);
  if (o.name !== undefined) names.push(at.string(o.name, `${path}.name`));
  const errnoRet = at.errno(o, 'errno', 'errnoRet');
  const args = at.list(o.args, `${path}.args`).map((arg, i) => parseArg(at, arg, `${path}.args[${i}]`));
  return {
    names,
    action: at.action(o.action, `${path}.action`),
    ...(errnoRet === undefined ? {} : { errnoRet }),
    ...(args.length > 0 ? { args } : {}),
    includes: parseFilter(at, o.includes, `${path}.includes`),
    excludes: parseFilter(at, o.excludes, `${path}.excludes`),
  };
}

function parseArg(at: Reader, arg: unknown, path: string): SeccompArg {
  const o = at.object(arg, path);
  return {
    index: Number(at.integer(o.index, `${path}.index`)),
    value: at.integer(o.value ?? 0, `${path}.value`),
    valueTwo: at.integer(o.valueTwo ?? 0, `${path}.valueTwo`),
    op: at.string(o.op, `${path}.op`),
  };
}

function parseFilter(at: Reader, filter: unknown, path: string): Filter {
  const o = at.object(filter ?? {}, path);
  return {
    caps: at.strings(o.caps, `${path}.caps`),
    arches: at.strings(o.arches, `${path}.arches`),
    minKernel: at.string(o.minKernel ?? '', `${path}.minKernel`),
  };
}

/**
 * The filter for one container: rules whose conditions hold for its capabilities, this architecture and
 * this kernel, and the architectures that go with the host's own.
 *
 * Without x32 where the kernel has none: the OCI runtime makes the filter anew for each container and each exec, and
 * the third architecture takes it 6 ms of CPU time, nearly a third of all that it does for a container.
 */
export function resolveSeccomp(
  profile: SeccompProfile,
  caps: readonly string[],
  host: Pick<HostFacts, 'goArch' | 'kernel' | 'x32'>,
): LinuxSeccomp {
  const native = NATIVE[host.goArch];
  const mapped = profile.archMap.find((m) => m.architecture === native);
  const architectures = mapped
    ? [mapped.architecture, ...mapped.subArchitectures.filter((name) => host.x32 || name !== X32)]
    : profile.architectures;
  const syscalls: SeccompRule[] = [];
  for (const { includes, excludes, ...rule } of profile.rules) {
    if (includes.arches.length > 0 && !includes.arches.includes(host.goArch)) continue;
    if (!includes.caps.every((c) => caps.includes(c))) continue;
    if (!kernelAtLeast(host.kernel, includes.minKernel)) continue;
    if (excludes.arches.includes(host.goArch)) continue;
    if (excludes.caps.some((c) => caps.includes(c))) continue;
    if (excludes.minKernel !== '' && kernelAtLeast(host.kernel, excludes.minKernel)) continue;
    syscalls.push(rule);
  }
  return {
    defaultAction: profile.defaultAction,
    ...(profile.defaultErrnoRet === undefined ? {} : { defaultErrnoRet: profile.defaultErrnoRet }),
    architectures,
    ...(profile.flags.length > 0 ? { flags: profile.flags } : {}),
    ...(profile.listenerPath ? { listenerPath: profile.listenerPath } : {}),
    ...(profile.listenerMetadata ? { listenerMetadata: profile.listenerMetadata } : {}),
    syscalls,
  };
}

function kernelAtLeast(kernel: readonly [number, number], wanted: string): boolean {
  const [major = 0, minor = 0] = wanted.split('.').map(Number);
  return kernel[0] > major || (kernel[0] === major && kernel[1] >= minor);
}

/** Reads members of a profile; its errors name the profile and the member. */
class Reader {
  readonly #name: string;

  constructor(name: string) {
    this.#name = name;
  }

  #wrong(path: string, wanted: string): BerthError {
    return new BerthError('invalid', `${this.#name}: ${path} must be ${wanted}`);
  }

  object(v: unknown, path: string): Record<string, unknown> {
    if (typeof v !== 'object' || v === null || Array.isArray(v)) throw this.#wrong(path, 'an object');
    return v as Record<string, unknown>;
  }

  list(v: unknown, path: string): unknown[] {
    if (v === undefined || v === null) return [];
    if (!Array.isArray(v)) throw this.#wrong(path, 'a list');
    return v;
  }

  string(v: unknown, path: string): string {
    if (typeof v !== 'string') throw this.#wrong(path, 'a string');
    return v;
  }

  strings(v: unknown, path: string): string[] {
    return this.list(v, path).map((s) => this.string(s, path));
  }

  integer(v: unknown, path: string): number | bigint {
    if (typeof v === 'bigint' && v >= 0n && v < 1n << 64n) return v;
    if (typeof v !== 'number' || !Number.isSafeInteger(v) || v < 0) {
      throw this.#wrong(path, 'an unsigned integer');
    }
    return v;
  }

  action(v: unknown, path: string): string {
    const action = this.string(v, path);
    if (!action.startsWith('SCMP_ACT_')) throw this.#wrong(path, 'an action such as SCMP_ACT_ERRNO');
    return action;
  }

  /** containers-common writes the error's name beside its number, for hosts that number otherwise. */
  errno(o: Record<string, unknown>, byName: string, byNumber: string): number | undefined {
    const name = o[byName] ?? '';
    if (name !== '') {
      const table: Record<string, number | undefined> = constants.errno;
      const number = table[this.string(name, byName)];
      if (number === undefined) throw this.#wrong(byName, 'the name of an error, such as EPERM');
      return number;
    }
    const number = o[byNumber];
    return number === undefined || number === null ? undefined : Number(this.integer(number, byNumber));
  }
}
