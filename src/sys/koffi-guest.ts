import type koffi from 'koffi';

/** Where the image's build has put koffi's machine code (src/vm/guest-image/rootfs.ts). */
const FILE = '/usr/lib/berth/koffi.node';

/**
 * koffi for the agent of virtual machines, whose bundle has this in place of the package: that finds out first for which
 * machine and C library it runs, in six modules, which takes a tenth of the time in which an emulated machine boots.
 */
const loaded: { exports: unknown } = { exports: {} };
process.dlopen(loaded as NodeJS.Module, FILE);
export default loaded.exports as typeof koffi;
