import { existsSync } from 'node:fs';
import path from 'node:path';
import { BerthError } from '../../errors.ts';
import type { AgentFiles } from './rootfs.ts';

const BUNDLE = 'dist/guest/agent.cjs';

/**
 * The parts of this installation that go into a guest. This code may run from `dist` or from the sources.
 *
 * @throws BerthError `precondition` for a checkout that is not built
 */
export function agentFiles(): AgentFiles {
  for (let dir = import.meta.dirname; dir !== path.dirname(dir); dir = path.dirname(dir)) {
    const bundle = path.join(dir, BUNDLE);
    if (existsSync(bundle))
      return { node: process.execPath, bundle, modules: path.join(dir, 'node_modules') };
  }
  throw new BerthError('precondition', `${BUNDLE} is missing: run "npm run build"`);
}
