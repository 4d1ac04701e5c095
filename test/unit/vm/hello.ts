import { PROTOCOL_VERSION } from '../../../src/vm/protocol/names.ts';

/** What a guest says first. */
export const HELLO = {
  version: PROTOCOL_VERSION,
  kernel: '6.1.0-cloud',
  bootMs: 3000,
  memoryBytes: '268435456',
  cpus: 1,
};
