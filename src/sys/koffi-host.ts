import { createRequire } from 'node:module';
import type koffi from 'koffi';

/**
 * koffi for the programs that are built, whose bundles have this in place of the package: that takes 6 ms of each start to
 * find out for which machine and C library it runs, which is that of the Node.js that berth brings.
 */
export default createRequire(import.meta.url)(
  `@koromix/koffi-linux-${process.arch}/linux_${process.arch}/koffi.node`,
) as typeof koffi;
