/** berth's own version, as in package.json. */
export const BERTH_VERSION = '0.1.0';
