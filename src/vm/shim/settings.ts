import { readFile } from 'node:fs/promises';
import { type JsonObject, objectOf } from './oci.ts';

/** berthd's table `[vm]`, whose schema is in src/config/schema.ts: the daemon of a shim has no use for the schema itself. */
export type VmSettings = import('../../config/schema.ts').Config['vm'];

/** Names the file in which berthd tells its settings to its shims. */
export const SETTINGS_VARIABLE = 'BERTH_VM_SETTINGS';
/** Names berth's configuration for a shim that another daemon started. */
const CONFIG_VARIABLE = 'BERTH_CONFIG';

/**
 * The settings as berthd has checked them; under another daemon those of berth's configuration file, or the defaults.
 *
 * @throws BerthError `invalid` naming file and key
 */
export async function loadSettings(env: NodeJS.ProcessEnv): Promise<VmSettings> {
  const file = env[SETTINGS_VARIABLE];
  if (file !== undefined) return readSettings(file);
  // With the parser and the schema it would weigh 15 MB more: only the start verb, which ends, has them.
  const { loadConfig } = await import('../../config/load.ts');
  return (await loadConfig(env[CONFIG_VARIABLE])).vm;
}

/** Settings that a process of berth's has checked and written. */
export async function readSettings(file: string): Promise<VmSettings> {
  const settings: JsonObject = objectOf(JSON.parse(await readFile(file, 'utf8')), file);
  return settings as unknown as VmSettings;
}
