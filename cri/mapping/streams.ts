import { invalid } from '../../src/errors.ts';
import type { WantedStreams } from '../../src/streaming/remote-command/session.ts';

/**
 * Which streams an ExecRequest or AttachRequest asks for.
 *
 * @throws BerthError `invalid` by the rules that CRI states at the fields: at least one stream, and none for
 *   stderr with a terminal, which has but one output
 */
export function wantedStreams({ stdin, stdout, stderr, tty }: WantedStreams): WantedStreams {
  if (!stdin && !stdout && !stderr) throw invalid('stdin, stdout, stderr', 'at least one must be set');
  if (tty && stderr) throw invalid('stderr', 'must not be set together with tty');
  return { stdin, stdout, stderr, tty };
}
