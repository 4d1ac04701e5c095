import type { Outcome } from './session.ts';

/**
 * The outcome as the error stream of protocols from v4 on carries it: a `Status` object of Kubernetes' API in
 * JSON, in which a code other than 0 is the message of the cause `ExitCode`.
 */
export function statusJson(outcome: Outcome): string {
  if ('error' in outcome) {
    return JSON.stringify({
      metadata: {},
      status: 'Failure',
      message: outcome.error,
      reason: 'InternalError',
      details: { causes: [{ message: outcome.error }] },
      code: 500,
    });
  }
  if (outcome.exitCode === 0) return JSON.stringify({ metadata: {}, status: 'Success' });
  return JSON.stringify({
    metadata: {},
    status: 'Failure',
    message: plain(outcome),
    reason: 'NonZeroExitCode',
    details: { causes: [{ reason: 'ExitCode', message: String(outcome.exitCode) }] },
  });
}

/** The same for protocols before v4: nothing for success, else a sentence. */
export function statusText(outcome: Outcome): string {
  return 'exitCode' in outcome && outcome.exitCode === 0 ? '' : plain(outcome);
}

function plain(outcome: Outcome): string {
  return 'error' in outcome
    ? outcome.error
    : `command terminated with non-zero exit code: exit status ${outcome.exitCode}`;
}
