import { BerthError } from '../../src/errors.ts';

/** Milliseconds per unit of `grpc-timeout`. */
const UNITS: Readonly<Record<string, number>> = {
  H: 3_600_000,
  M: 60_000,
  S: 1_000,
  m: 1,
  u: 1e-3,
  n: 1e-6,
};

/**
 * The milliseconds of a `grpc-timeout` header, rounded up: at most eight digits and a unit (gRPC over HTTP/2,
 * "Requests").
 *
 * @throws BerthError `internal`, as other servers answer
 */
export function parseTimeout(header: string): number {
  const [, digits, unit = ''] = /^(\d{1,8})([HMSmun])$/.exec(header) ?? [];
  if (digits === undefined) {
    throw new BerthError(
      'internal',
      `grpc-timeout: ${JSON.stringify(header)} is not digits and one of H M S m u n`,
    );
  }
  return Math.ceil(Number(digits) * (UNITS[unit] ?? 1));
}
