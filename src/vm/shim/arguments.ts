import { BerthError } from '../../errors.ts';

/** How containerd, or berthd, calls a shim program (containerd's docs/runtime-v2.md). */
export interface ShimArguments {
  verb: 'start' | 'delete' | 'serve' | 'info' | 'version';
  namespace: string;
  /** Of the container or sandbox. */
  id: string;
  /** Of the caller's own service. */
  address: string;
  /** Publishes events where there is no socket for them; empty: none. */
  publishBinary: string;
  /** The bundle of what `delete` clears up. */
  bundle: string;
  debug: boolean;
}

const VALUES = {
  namespace: 'namespace',
  id: 'id',
  address: 'address',
  'publish-binary': 'publishBinary',
  bundle: 'bundle',
  socket: undefined,
} as const;
const VERBS: readonly string[] = ['start', 'delete', 'serve'];
/** containerd's own limit for names of namespaces and containers, and what is safe in a path. */
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;

/**
 * Reads flags as Go's package flag does: `-id x`, `--id x`, `-id=x`; they come before the verb.
 *
 * @throws BerthError `invalid` naming the flag
 */
export function parseArguments(argv: readonly string[]): ShimArguments {
  const result: ShimArguments = {
    ...{ verb: 'serve', namespace: '', id: '', address: '', publishBinary: '', bundle: '', debug: false },
  };
  let at = 0;
  for (; argv[at]?.startsWith('-'); at++) {
    const [flag = '', inline] = splitFlag(argv[at] ?? '');
    if (flag === 'v' || flag === 'info') return { ...result, verb: flag === 'v' ? 'version' : 'info' };
    if (flag === 'debug') result.debug = inline !== 'false';
    else if (!isValueFlag(flag)) throw new BerthError('invalid', `-${flag}: there is no such flag`);
    else {
      const value = inline ?? argv[++at];
      if (value === undefined) throw new BerthError('invalid', `-${flag}: a value must follow`);
      const name = VALUES[flag];
      if (name !== undefined) result[name] = value;
    }
  }
  const verb = argv[at] ?? '';
  if (!VERBS.includes(verb)) {
    throw new BerthError('invalid', `${JSON.stringify(verb)}: the verb must be start or delete`);
  }
  for (const name of ['namespace', 'id'] as const) {
    if (!NAME.test(result[name]))
      throw new BerthError('invalid', `-${name} ${JSON.stringify(result[name])}: no name`);
  }
  return { ...result, verb: verb as ShimArguments['verb'] };
}

function splitFlag(argument: string): [string, string | undefined] {
  const text = argument.replace(/^--?/, '');
  const equals = text.indexOf('=');
  return equals < 0 ? [text, undefined] : [text.slice(0, equals), text.slice(equals + 1)];
}

function isValueFlag(flag: string): flag is keyof typeof VALUES {
  return Object.hasOwn(VALUES, flag);
}
