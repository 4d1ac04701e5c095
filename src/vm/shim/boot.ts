import { BerthError } from '../../errors.ts';
import type { VmDirectory } from './directory.ts';
import type { Boot, Log } from './machine.ts';
import type { VmSettings } from './settings.ts';

/** What machines are booted with. */
export interface BootParts {
  /** The sandbox's. */
  id: string;
  directory: VmDirectory;
  settings: VmSettings;
  log: Log;
}

export function bootMachine(_parts: BootParts): Boot {
  return async () => {
    throw new BerthError('unimplemented', 'not yet');
  };
}
