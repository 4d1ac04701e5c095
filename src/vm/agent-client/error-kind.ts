import type { ErrorKind } from '../../errors.ts';

const KINDS: ReadonlySet<string> = new Set<ErrorKind>([
  ...([
    'invalid',
    'notFound',
    'alreadyExists',
    'precondition',
    'unavailable',
    'deadline',
    'cancelled',
  ] as const),
  ...(['unimplemented', 'exhausted', 'permission', 'internal'] as const),
]);

/** The kind that the agent named; `internal` for a word that is none. */
export function errorKind(name: string): ErrorKind {
  return isKind(name) ? name : 'internal';
}

function isKind(name: string): name is ErrorKind {
  return KINDS.has(name);
}
