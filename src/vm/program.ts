import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** berth's shim for virtual machines, of the installation that this file is in, be it sources or a build. */
export function vmShimProgram(): string {
  let dir = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(dir, 'package.json')) && dir !== '/') dir = dirname(dir);
  return join(dir, 'bin/containerd-shim-berth-vm-v2');
}
