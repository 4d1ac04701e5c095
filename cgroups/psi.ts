import { type ReadFile, readOptional } from './io.ts';
import { parsePsi } from './parse.ts';
import type { PsiStats } from './types.ts';

/** The three pressure files of a v2 cgroup; undefined when there is none (psi=0, kernel before 5.2). */
export function psiStats(dir: string, read: ReadFile = readOptional): PsiStats | undefined {
  const [cpu, memory, io] = ['cpu', 'memory', 'io'].map((r) => parsePsi(read(dir, `${r}.pressure`)));
  return cpu === undefined && memory === undefined && io === undefined ? undefined : { cpu, memory, io };
}
