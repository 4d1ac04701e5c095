import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { BerthError, messageOf } from '../../errors.ts';
import { parseOci } from '../../spec/json.ts';

/** A JSON object of which nothing is known. */
export type JsonObject = Readonly<Record<string, unknown>>;

/** One mount of a spec, checked. */
export interface OciMount {
  destination: string;
  type: string;
  source: string;
  options: readonly string[];
  /** It asks for owners to be mapped. */
  isMapped: boolean;
}

export interface OciNamespace {
  type: string;
  path: string | undefined;
}

/**
 * An OCI runtime spec as somebody wrote it, containerd or berthd: what this shim looks at is checked when it is looked
 * at, all else is passed on to the OCI runtime in the guest.
 */
export class OciSpec {
  readonly json: JsonObject;

  constructor(json: JsonObject) {
    this.json = json;
  }

  /** @throws BerthError `invalid` naming the file */
  static async read(bundle: string): Promise<OciSpec> {
    const file = join(bundle, 'config.json');
    let json: unknown;
    try {
      json = parseOci(await readFile(file, 'utf8'));
    } catch (e: unknown) {
      throw new BerthError('invalid', `${file}: ${messageOf(e)}`, { cause: e });
    }
    return new OciSpec(objectOf(json, 'the spec'));
  }

  get annotations(): JsonObject {
    return optionalObject(this.json.annotations, 'annotations');
  }
  get linux(): JsonObject {
    return optionalObject(this.json.linux, 'linux');
  }
  get process(): JsonObject {
    return optionalObject(this.json.process, 'process');
  }
  get hostname(): string {
    return typeof this.json.hostname === 'string' ? this.json.hostname : '';
  }
  get sysctls(): Record<string, string> {
    const entries = Object.entries(optionalObject(this.linux.sysctl, 'linux.sysctl'));
    return Object.fromEntries(entries.map(([name, value]) => [name, textOf(value, `linux.sysctl.${name}`)]));
  }
  get cgroupsPath(): string {
    const { cgroupsPath } = this.linux;
    return typeof cgroupsPath === 'string' ? cgroupsPath : '';
  }
  /** As the spec has it: absolute or below the bundle. */
  get rootPath(): string {
    const { path } = optionalObject(this.json.root, 'root');
    return typeof path === 'string' ? path : 'rootfs';
  }
  get mounts(): OciMount[] {
    return listOf(this.json.mounts, 'mounts').map((mount, i) => {
      const { destination, type, source, options, uidMappings, gidMappings } = objectOf(
        mount,
        `mounts[${i}]`,
      );
      return {
        destination: textOf(destination, `mounts[${i}].destination`),
        type: typeof type === 'string' ? type : '',
        source: typeof source === 'string' ? source : '',
        options: listOf(options, `mounts[${i}].options`).map((o) => textOf(o, `mounts[${i}].options`)),
        isMapped: uidMappings !== undefined || gidMappings !== undefined,
      };
    });
  }
  get namespaces(): OciNamespace[] {
    return listOf(this.linux.namespaces, 'linux.namespaces').map((namespace, i) => {
      const { type, path } = objectOf(namespace, `linux.namespaces[${i}]`);
      return {
        type: textOf(type, `linux.namespaces[${i}].type`),
        path: typeof path === 'string' && path !== '' ? path : undefined,
      };
    });
  }
  /** Undefined when the container shares the node's. */
  namespace(type: string): OciNamespace | undefined {
    return this.namespaces.find((n) => n.type === type);
  }
}

/** @throws BerthError `invalid` naming the field */
export function objectOf(value: unknown, field: string): JsonObject {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as JsonObject;
  throw new BerthError('invalid', `${field}: must be an object`);
}

function optionalObject(value: unknown, field: string): JsonObject {
  return value === undefined || value === null ? {} : objectOf(value, field);
}

/** An absent list is empty. @throws BerthError `invalid` naming the field */
export function listOf(value: unknown, field: string): readonly unknown[] {
  if (value === undefined || value === null) return [];
  if (Array.isArray(value)) return value;
  throw new BerthError('invalid', `${field}: must be a list`);
}

function textOf(value: unknown, field: string): string {
  if (typeof value === 'string') return value;
  throw new BerthError('invalid', `${field}: must be text`);
}
