import type { Config } from '../config/schema.ts';

/** What cAdvisor takes for a container of CRI-O: a cgroup whose name begins so and holds 64 digits or letters. */
const CRIO = 'crio';

/** What the names of new containers' cgroups begin with; undefined: as berth names them of itself. */
export function cgroupLeaf({ cadvisor }: Pick<Config, 'cadvisor'>): string | undefined {
  return cadvisor.enabled ? CRIO : undefined;
}
