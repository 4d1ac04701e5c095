import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import protobuf from 'protobufjs/light.js';

/**
 * How messages look in JavaScript; `npm run gen` names the same options, so that the generated types tell
 * the truth. Fields keep the names of the .proto files. On output every field is there (absent messages are
 * null, absent lists empty), int64 and uint64 are decimal strings, enums the names of their values, and a
 * `oneof` has a member of its own that names the field in use. A number of an enum that this version does
 * not know stays a number, whatever the generated type says.
 */
const OUTPUT: protobuf.IConversionOptions = { longs: String, enums: String, defaults: true, oneofs: true };

/** One message type's way to the wire and back. */
export interface Message<In, Out> {
  /** @throws Error when a field has a value of another type */
  serialize(message: In): Buffer;
  /** @throws Error for what is no such message */
  deserialize(bytes: Uint8Array): Out;
}

/** A service's methods as grpc-js takes them. */
export interface Method {
  readonly path: string;
  readonly requestStream: boolean;
  readonly responseStream: boolean;
  readonly requestSerialize: (message: object) => Buffer;
  readonly requestDeserialize: (bytes: Buffer) => object;
  readonly responseSerialize: (message: object) => Buffer;
  readonly responseDeserialize: (bytes: Buffer) => object;
}

/** A generated definition of a service without the descriptors, which are for reflection only. */
export type Service<Definition> = {
  readonly [Name in keyof Definition]: Omit<Definition[Name], 'requestType' | 'responseType' | 'options'>;
};

/** A package, message, enum or service of a set, as protobufjs writes it. */
interface Descriptor {
  readonly nested?: Readonly<Record<string, Descriptor>>;
  /** Of a message. */
  readonly fields?: Readonly<Record<string, { readonly type: string }>>;
  /** Of an enum. */
  readonly values?: object;
  /** Of a service. */
  readonly methods?: Readonly<Record<string, protobuf.IMethod>>;
}

/**
 * The services and messages of one set of .proto files. `npm run gen` has parsed them; a message is put together
 * when the first one comes, with those that it refers to, and so is the code for it. A start needs two of some
 * hundred messages: with all of them, and with the parser, it took 150 ms of CPU longer.
 */
export class Codec {
  readonly #set: Descriptor;
  readonly #root = new protobuf.Root();
  /** Messages and enums that the root has, by their absolute names. */
  readonly #known = new Set<string>();

  /** @param set a file of proto/gen. Throws when it is missing. */
  constructor(set: 'api.json' | 'shim.json') {
    const file = join(protoDirectory(), 'gen', set);
    this.#set = JSON.parse(readFileSync(file, 'utf8')) as Descriptor;
  }

  /** @param name with its package */
  service(name: string): Record<string, Method> {
    const { descriptor } = this.#find(`.${name}`);
    const methods = Object.entries(descriptor.methods ?? {}).map(([method, about]): [string, Method] => {
      const [request, response] = [this.#message(about.requestType), this.#message(about.responseType)];
      return [
        method,
        {
          path: `/${name}/${method}`,
          requestStream: about.requestStream === true,
          responseStream: about.responseStream === true,
          requestSerialize: request.serialize,
          requestDeserialize: request.deserialize,
          responseSerialize: response.serialize,
          responseDeserialize: response.deserialize,
        },
      ];
    });
    return Object.fromEntries(methods);
  }

  /** @param name with its package */
  message(name: string): Message<object, object> {
    return this.#message(`.${name}`);
  }

  #message(name: string): Message<object, object> {
    let known: protobuf.Type | undefined;
    const type = (): protobuf.Type => {
      known ??= this.#load(name);
      return known;
    };
    return {
      // protobufjs writes into a Buffer where there are Buffers.
      serialize: (message) => type().encode(type().fromObject(message)).finish() as Buffer,
      deserialize: (bytes) => type().toObject(type().decode(bytes), OUTPUT),
    };
  }

  #load(name: string): protobuf.Type {
    this.#add(name);
    this.#root.resolveAll();
    return this.#root.lookupType(name);
  }

  /** Puts a message or enum into the root, and all that it refers to. */
  #add(name: string): void {
    const { path, descriptor } = this.#find(name);
    const absolute = path.join('.');
    if (this.#known.has(absolute)) return;
    this.#known.add(absolute);
    const simple = path.at(-1) ?? '';
    this.#root
      .define(path.slice(0, -1))
      .add(
        descriptor.fields === undefined
          ? protobuf.Enum.fromJSON(simple, descriptor as protobuf.IEnum)
          : protobuf.Type.fromJSON(simple, descriptor as protobuf.IType),
      );
    for (const type of typesIn(descriptor)) this.#add(type);
  }

  /** @returns what a name stands for; for something within a message, that message */
  #find(name: string): { path: readonly string[]; descriptor: Descriptor } {
    const path: string[] = [];
    let descriptor = this.#set;
    for (const part of name.slice(1).split('.')) {
      if (descriptor.fields !== undefined) break;
      const next = descriptor.nested?.[part];
      if (next === undefined) throw new Error(`${name} is not in the set`);
      path.push(part);
      descriptor = next;
    }
    return { path, descriptor };
  }
}

/** Names of the messages and enums that the fields of a message refer to, and of the messages within it. */
function typesIn({ fields = {}, nested = {} }: Descriptor): string[] {
  const own = Object.values(fields).map(({ type }) => type);
  // Scalars have no dot.
  return [...own.filter((type) => type.startsWith('.')), ...Object.values(nested).flatMap(typesIn)];
}

/** Where the .proto files are, from the source tree and from `dist/` alike: the build copies none. */
function protoDirectory(): string {
  const start = dirname(fileURLToPath(import.meta.url));
  let dir = start;
  while (!existsSync(join(dir, 'package.json'))) {
    const parent = dirname(dir);
    if (parent === dir)
      throw new Error(`no package.json in ${start} or above it: the installation is incomplete`);
    dir = parent;
  }
  return join(dir, 'proto');
}
