import { invalid } from '../errors.ts';
import { parseCdiName, type RequestedCdiDevice } from './name.ts';
import type { CdiFile, CdiFiles } from './read.ts';
import type { CdiEdits } from './schema.ts';

/**
 * The edits for some devices in the order in which they are made: for each device those of its file, the first
 * time that the file comes up, and then its own.
 *
 * A device in two files is taken from the one whose directory comes later in the configuration. Within one
 * directory nobody could tell which is meant, so neither is.
 *
 * @throws BerthError `invalid` naming the field of the device that is not there or in conflict
 */
export function resolveCdiDevices(
  requested: readonly RequestedCdiDevice[],
  { files, problems }: CdiFiles,
): CdiEdits[] {
  const edits: CdiEdits[] = [];
  const used = new Set<CdiFile>();
  for (const { name, field } of requested) {
    const { kind, device } = parseCdiName(name, field);
    const having = files.filter(
      ({ spec }) => spec.kind === kind && spec.devices.some((candidate) => candidate.name === device),
    );
    const rank = Math.max(...having.map((file) => file.rank));
    const [file, ...others] = having.filter((candidate) => candidate.rank === rank);
    if (file === undefined) throw invalid(field, `no CDI device ${name}${because(problems)}`);
    if (others.length > 0) {
      const paths = [file, ...others].map(({ path }) => path).join(' and ');
      throw invalid(field, `the CDI device ${name} is in conflict: it is in ${paths}`);
    }
    if (!used.has(file) && file.spec.containerEdits !== undefined) edits.push(file.spec.containerEdits);
    used.add(file);
    const own = file.spec.devices.find((candidate) => candidate.name === device);
    if (own !== undefined) edits.push(own.containerEdits);
  }
  return edits;
}

/** A file that cannot be read may be the one that has the device. */
function because(problems: readonly string[]): string {
  return problems.length === 0 ? '' : ` (unusable: ${problems.slice(0, 3).join('; ').slice(0, 500)})`;
}
