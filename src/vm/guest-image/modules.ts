import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';

/** A kernel's modules by name, from one directory tree; names have `_` where files may have `-`. */
export type ModuleFiles = ReadonlyMap<string, string>;

export async function findModules(dir: string): Promise<ModuleFiles> {
  const files = new Map<string, string>();
  for (const entry of await readdir(dir, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || !entry.name.endsWith('.ko')) continue;
    files.set(entry.name.slice(0, -3).replaceAll('-', '_'), path.join(entry.parentPath, entry.name));
  }
  return files;
}

/**
 * The named modules with all that they need, in an order in which they can be loaded. Names that the kernel does
 * not have as modules are left out: they are built in, or of another version of it.
 */
export async function loadOrder(files: ModuleFiles, names: readonly string[]): Promise<string[]> {
  const order: string[] = [];
  const visit = async (name: string): Promise<void> => {
    const file = files.get(name);
    if (file === undefined || order.includes(name)) return;
    for (const needed of await dependencies(file)) await visit(needed);
    if (!order.includes(name)) order.push(name);
  };
  for (const name of names) await visit(name);
  return order;
}

/** From the module's own section `.modinfo`: strings `key=value`, each ended by a NUL. */
async function dependencies(file: string): Promise<string[]> {
  const text = await readFile(file, 'latin1');
  const list = /\0depends=([^\0]*)\0/.exec(text)?.[1] ?? '';
  return list.split(',').flatMap((name) => (name === '' ? [] : [name.replaceAll('-', '_')]));
}
