import { execFile } from 'node:child_process';
import path from 'node:path';
import { promisify } from 'node:util';

const exec = promisify(execFile);

/** The handler's name in tests. */
export const VM_HANDLER = 'vm';
/** Where the guest image of tests is kept; made anew only when a part of it has changed. */
const GUEST_DIR = '/var/cache/berth-test-guest';
const BERTH = path.resolve(import.meta.dirname, '../../bin/berth');

/** Configuration: runc and virtual machines. */
export function vmTables(guestDir = GUEST_DIR, more = ''): string {
  return `
[runtimes.runc]
path = "/usr/sbin/runc"
[runtimes.${VM_HANDLER}]
type = "vm"
[vm]
guest_dir = "${guestDir}"
${more}
`;
}

/** Sees to it that there is a guest image: 15 s the first time, 1 s later. */
export async function buildGuest(): Promise<void> {
  await exec(BERTH, ['vm', 'build-guest', '--dir', GUEST_DIR]);
}
