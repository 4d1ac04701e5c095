/** Begins the names of devices that join a pod's interface to its guest: their traffic is that interface's. */
export const TAP_PREFIX = 'berth_tap';
