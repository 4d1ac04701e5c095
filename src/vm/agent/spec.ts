import { BerthError } from '../../errors.ts';
import { parseOci, stringifyOci } from '../../spec/json.ts';

/** What the agent decides of a container's spec. */
export interface SpecChoices {
  /** Of the container, below the guest's containers. */
  cgroupsPath: string;
  /** The namespace's file for the host's word: `sandbox` (the pod's) or `container:<id>`. */
  pidNamespace(word: string): Promise<string>;
}

type JsonObject = Record<string, unknown>;

/**
 * The spec as runc in the guest takes it: with its cgroup, and a real path where the host names a PID namespace by
 * a word.
 *
 * @throws BerthError `invalid` for what is no spec
 */
export async function completeSpec(text: string, choices: SpecChoices): Promise<string> {
  const spec = objectOf(parse(text), 'spec');
  const linux = objectOf(spec.linux, 'spec.linux');
  const namespaces: unknown[] = [];
  for (const item of Array.isArray(linux.namespaces) ? linux.namespaces : []) {
    const namespace = objectOf(item, 'spec.linux.namespaces');
    const { type, path } = namespace;
    const named = type === 'pid' && typeof path === 'string' && !path.startsWith('/');
    namespaces.push(named ? { type, path: await choices.pidNamespace(path) } : namespace);
  }
  return stringifyOci({ ...spec, linux: { ...linux, namespaces, cgroupsPath: choices.cgroupsPath } });
}

/** The root file system's path in the guest. @throws BerthError `invalid` */
export function rootPath(text: string): string {
  const { path } = objectOf(objectOf(parse(text), 'spec').root, 'spec.root');
  if (typeof path !== 'string') throw new BerthError('invalid', 'spec.root.path: no text');
  return path;
}

function parse(text: string): unknown {
  try {
    return parseOci(text);
  } catch (e: unknown) {
    throw new BerthError('invalid', 'spec: no JSON', { cause: e });
  }
}

function objectOf(value: unknown, what: string): JsonObject {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new BerthError('invalid', `${what}: no object`);
  }
  return { ...value };
}
