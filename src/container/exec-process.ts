import { readFileSync } from 'node:fs';
import { BerthError, invalid } from '../errors.ts';
import type { ExecOptions, ExecProcess } from '../runtime/handler.ts';
import type { Services } from '../services.ts';
import { parseOci } from '../spec/json.ts';
import { execProcess } from '../spec/process.ts';
import type { Spec } from '../spec/types.ts';
import { containerState } from './record.ts';
import { live, runtimeOf } from './start.ts';

/** @throws BerthError `invalid` for no command; `notFound`; `precondition` when the container is not running */
export function checkExec(s: Services, id: string, command: string[]): void {
  const container = live(s, id);
  if (command.length === 0) throw invalid('cmd', 'must name a command');
  if (command.some((arg) => arg.includes('\0'))) throw invalid('cmd', 'must not contain NUL bytes');
  const state = containerState(container);
  if (state !== 'running') throw new BerthError('precondition', `the container is ${state}, not running`);
}

/**
 * Starts a command in a container, with the container's user, environment, capabilities, seccomp filter and
 * cgroup.
 *
 * @param signal ends the start; not what has been started
 * @throws as {@link checkExec}; BerthError `internal` with the runtime's message when it cannot be started
 */
export async function startExec(
  s: Services,
  id: string,
  options: ExecOptions,
  signal: AbortSignal,
): Promise<ExecProcess> {
  checkExec(s, id, options.command);
  const runtime = runtimeOf(s, live(s, id));
  const spec = parseOci(readFileSync(s.paths.container(id).spec, 'utf8')) as Spec;
  return runtime.exec(id, execProcess(spec.process, options.command, options.tty), options, signal);
}
