import { BerthError, type ErrorKind } from '../errors.ts';

/** What berth's exit status says; printed by `berth --help`. */
export const EXIT = { ok: 0, failed: 1, usage: 2, notFound: 3, unreachable: 4, interrupted: 130 } as const;

/** The command line, or a file that it names, is wrong: exit status 2. */
export class UsageError extends Error {}

/** No daemon answers at the endpoint: exit status 4. */
export class UnreachableError extends Error {
  /** @param reason why, as a clause such as `there is no such socket` */
  constructor(endpoint: string, reason: string) {
    super(
      `no daemon answers at ${endpoint}: ${reason}. Start it (systemctl start berthd, or ` +
        'bin/berthd --config FILE), or name its socket with --endpoint or BERTH_ENDPOINT',
    );
  }
}

/** Ends berth with this status and no further message: the status is the result (`berth exec`). */
export class ExitStatus extends Error {
  readonly code: number;

  constructor(code: number) {
    super(`exit status ${code}`);
    this.code = code;
  }
}

/** The exit status for anything that a verb threw. */
export function exitCodeOf(e: unknown): number {
  if (e instanceof ExitStatus) return e.code;
  if (e instanceof UsageError) return EXIT.usage;
  if (e instanceof UnreachableError) return EXIT.unreachable;
  if (e instanceof BerthError) {
    const codes: Partial<Record<ErrorKind, number>> = { invalid: EXIT.usage, notFound: EXIT.notFound };
    return codes[e.kind] ?? EXIT.failed;
  }
  return EXIT.failed;
}
