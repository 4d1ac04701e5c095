import { guestImages } from './guest.ts';

/** The handler's name in tests. */
export const VM_HANDLER = 'vm';

/** Emulated on two busy processors a boot has taken a minute; seconds. */
const BOOT_S = 100;

/** Configuration: runc and virtual machines. `testGuestImage` makes what they boot. */
export function vmTables(guestDir = guestImages(), more = ''): string {
  return `
[runtimes.runc]
path = "/usr/sbin/runc"
[runtimes.${VM_HANDLER}]
type = "vm"
[vm]
guest_dir = "${guestDir}"
boot_timeout = ${BOOT_S}
${more}
`;
}
