import { BerthError } from '../../errors.ts';
import { type JsonObject, objectOf } from './oci.ts';

/** Processors and memory nodes of the host, in the list format of cpuset(7); empty: nothing is said. */
export interface HostCpus {
  cpus: string;
  mems: string;
}

/** More than any kernel is built for. */
const MAX_NUMBER = 8191;

/**
 * What the containers of a machine are to run on. A guest has other processors than its host, so that a container cannot
 * be kept on some of the host's; the machine can, on those of all of its containers together.
 */
export class CpuSets {
  readonly #wanted = new Map<string, HostCpus>();

  /** @returns what is to hold now @throws BerthError `invalid` for what is no list */
  set(id: string, given: Partial<HostCpus>): HostCpus {
    const { cpus, mems } = { cpus: '', mems: '', ...this.#wanted.get(id), ...given };
    this.#wanted.set(id, { cpus: union([cpus]), mems: union([mems]) });
    return this.#together();
  }

  /** @returns what is to hold now: nothing without the last container that named any, which changes nothing */
  delete(id: string): HostCpus {
    this.#wanted.delete(id);
    return this.#together();
  }

  /** One that names none is content with those of the others. */
  #together(): HostCpus {
    const all = [...this.#wanted.values()];
    return { cpus: union(all.map(({ cpus }) => cpus)), mems: union(all.map(({ mems }) => mems)) };
  }
}

/** What OCI resources name; a list that is left out or empty is no change. */
export function hostCpus(resources: unknown): Partial<HostCpus> {
  const { cpu }: JsonObject = objectOf(resources ?? {}, 'linux.resources');
  const { cpus, mems } = objectOf(cpu ?? {}, 'linux.resources.cpu');
  return {
    ...(typeof cpus === 'string' && cpus !== '' ? { cpus } : {}),
    ...(typeof mems === 'string' && mems !== '' ? { mems } : {}),
  };
}

function union(lists: readonly string[]): string {
  return toList([...new Set(lists.flatMap(numbersOf))].sort((a, b) => a - b));
}

function numbersOf(list: string): number[] {
  if (list.trim() === '') return [];
  return list.split(',').flatMap((part) => {
    const [, first = '', last = first] = /^\s*(\d{1,4})(?:-(\d{1,4}))?\s*$/.exec(part) ?? [];
    const [from, to] = [Number(first), Number(last)];
    if (first === '' || from > to || to > MAX_NUMBER) {
      throw new BerthError('invalid', `linux.resources.cpu: "${list}" is no list such as 0-3,8`);
    }
    return Array.from({ length: to - from + 1 }, (_, i) => from + i);
  });
}

function toList(numbers: readonly number[]): string {
  const ranges: [number, number][] = [];
  for (const n of numbers) {
    const last = ranges.at(-1);
    if (last !== undefined && last[1] === n - 1) last[1] = n;
    else ranges.push([n, n]);
  }
  return ranges.map(([from, to]) => (from === to ? `${from}` : `${from}-${to}`)).join(',');
}
