import { testGuestImage } from '../guest.ts';
import { SHIM_HANDLER, SHIM_TABLES } from '../shim.ts';
import { VM_HANDLER, vmTables } from '../vm.ts';

/** What a pod may ask for and some handlers refuse. */
export type Ability =
  | "the node's network"
  | "the node's PID namespace"
  | "the node's IPC namespace"
  | 'a user namespace'
  | "the node's devices"
  | 'bidirectional propagation'
  | 'recursive read-only mounts';

/** A runtime handler, as the contract that all of them keep is tested against it. */
export interface PodHandler {
  name: string;
  /** Tables of the configuration that have it, and runc. */
  tables: string;
  /** Makes what it needs of the machine. */
  prepare?: () => Promise<unknown>;
  /** Its pods run on another kernel than the node's. */
  hasOwnKernel: boolean;
  /** What it refuses, with the reason that its refusal gives. */
  cannot: Partial<Record<Ability, string>>;
  /** Where it does not kill what a command has started when the command's time is over. */
  leavesChildrenOfCommands?: string;
}

const OWN_KERNEL = 'a virtual machine has a kernel of its own';

export const RUNC: PodHandler = {
  name: 'runc',
  tables: '',
  hasOwnKernel: false,
  // User namespaces depend on its version, and have tests of their own.
  cannot: {},
};

export const SHIM_RUNC: PodHandler = {
  name: SHIM_HANDLER,
  tables: SHIM_TABLES,
  hasOwnKernel: false,
  cannot: {
    'a user namespace': 'cannot map the owners of mounts',
    'recursive read-only mounts': 'does not know them',
  },
};

export const VM: PodHandler = {
  name: VM_HANDLER,
  tables: vmTables(),
  prepare: testGuestImage,
  hasOwnKernel: true,
  cannot: {
    "the node's network": OWN_KERNEL,
    "the node's PID namespace": OWN_KERNEL,
    "the node's IPC namespace": OWN_KERNEL,
    'a user namespace': "keeps its users from the node's already",
    "the node's devices": OWN_KERNEL,
    'bidirectional propagation': 'mounts that a guest makes do not come to the node',
  },
  leavesChildrenOfCommands: "the shim's API kills one process, and its group is not known on the node",
};
