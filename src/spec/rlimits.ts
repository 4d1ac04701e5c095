import { BerthError } from '../errors.ts';
import type { HostFacts } from './host.ts';
import type { Rlimit } from './types.ts';

/** Name in the configuration (that of limits.conf(5) and `docker run --ulimit`) to the kernel's. */
const NAMES: Readonly<Record<string, string>> = {
  as: 'RLIMIT_AS',
  core: 'RLIMIT_CORE',
  cpu: 'RLIMIT_CPU',
  data: 'RLIMIT_DATA',
  fsize: 'RLIMIT_FSIZE',
  locks: 'RLIMIT_LOCKS',
  memlock: 'RLIMIT_MEMLOCK',
  msgqueue: 'RLIMIT_MSGQUEUE',
  nice: 'RLIMIT_NICE',
  nofile: 'RLIMIT_NOFILE',
  nproc: 'RLIMIT_NPROC',
  rss: 'RLIMIT_RSS',
  rtprio: 'RLIMIT_RTPRIO',
  rttime: 'RLIMIT_RTTIME',
  sigpending: 'RLIMIT_SIGPENDING',
  stack: 'RLIMIT_STACK',
};

/** A line of /proc/<pid>/limits begins with this (fs/proc/base.c). */
const TITLES: Readonly<Record<string, string>> = {
  'Max address space': 'RLIMIT_AS',
  'Max core file size': 'RLIMIT_CORE',
  'Max cpu time': 'RLIMIT_CPU',
  'Max data size': 'RLIMIT_DATA',
  'Max file size': 'RLIMIT_FSIZE',
  'Max file locks': 'RLIMIT_LOCKS',
  'Max locked memory': 'RLIMIT_MEMLOCK',
  'Max msgqueue size': 'RLIMIT_MSGQUEUE',
  'Max nice priority': 'RLIMIT_NICE',
  'Max open files': 'RLIMIT_NOFILE',
  'Max processes': 'RLIMIT_NPROC',
  'Max resident set': 'RLIMIT_RSS',
  'Max realtime priority': 'RLIMIT_RTPRIO',
  'Max realtime timeout': 'RLIMIT_RTTIME',
  'Max pending signals': 'RLIMIT_SIGPENDING',
  'Max stack size': 'RLIMIT_STACK',
};

/** RLIM_INFINITY (setrlimit(2)). */
const INFINITY = (1n << 64n) - 1n;

/**
 * Parses `default_ulimits` of the configuration: `nofile=1024:524288`, `core=0`, `memlock=unlimited`. One
 * number is both limits, soft before hard.
 *
 * @throws BerthError `invalid` naming the entry
 */
export function parseUlimits(entries: readonly string[]): Rlimit[] {
  const limits = entries.map((entry, i): Rlimit => {
    const [, name = '', soft = '', hard = soft] = /^([a-z]+)=(\w+)(?::(\w+))?$/.exec(entry) ?? [];
    const type = Object.hasOwn(NAMES, name) ? NAMES[name] : undefined;
    const limit = { type: type ?? '', soft: value(soft), hard: value(hard) };
    if (type === undefined || limit.soft === undefined || limit.hard === undefined) {
      throw wrong(i, `is not like "nofile=1024:524288" or "core=unlimited": ${JSON.stringify(entry)}`);
    }
    if (limit.soft > limit.hard) throw wrong(i, 'has a soft limit above its hard one');
    return { type, soft: limit.soft, hard: limit.hard };
  });
  const twice = limits.findIndex((l, i) => limits.findIndex((other) => other.type === l.type) !== i);
  if (twice >= 0) throw wrong(twice, 'names the same limit as an earlier one');
  return limits;
}

function wrong(index: number, problem: string): BerthError {
  return new BerthError('invalid', `entry ${index + 1} ${problem}`);
}

function value(text: string): bigint | undefined {
  if (text === 'unlimited') return INFINITY;
  return /^\d{1,19}$/.test(text) ? BigInt(text) : undefined;
}

/** The hard limits in the text of a `/proc/<pid>/limits`, by the kernel's names. */
export function hardLimits(text: string): Map<string, bigint> {
  const limits = new Map<string, bigint>();
  for (const line of text.split('\n')) {
    const [, title = '', , hard = ''] = /^(Max [a-z ]+?)\s{2,}(\S+)\s+(\S+)/.exec(line) ?? [];
    const type = TITLES[title];
    const limit = value(hard);
    if (type !== undefined && limit !== undefined) limits.set(type, limit);
  }
  return limits;
}

/**
 * `wanted` as far as the daemon may set it: only CAP_SYS_RESOURCE lets a process raise a hard limit above its
 * own, and the OCI runtime would fail on the first that is higher.
 */
export function grantedRlimits(
  wanted: readonly Rlimit[],
  { caps, hardLimits: own }: Pick<HostFacts, 'caps' | 'hardLimits'>,
): Rlimit[] {
  if (caps.has('CAP_SYS_RESOURCE')) return [...wanted];
  return wanted.map(({ type, soft, hard }) => {
    const most = own.get(type) ?? INFINITY;
    return { type, soft: soft < most ? soft : most, hard: hard < most ? hard : most };
  });
}
