/** The handler's name in tests. */
export const VM_HANDLER = 'vm';

/** Configuration: runc and virtual machines. */
export function vmTables(more = ''): string {
  return `
[runtimes.runc]
path = "/usr/sbin/runc"
[runtimes.${VM_HANDLER}]
type = "vm"
[vm]
${more}
`;
}
