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

/**
 * The services and messages of one set of .proto files. `npm run gen` has parsed them, and the code for a
 * message is made when the first one comes: with the parser and the descriptors of proto-loader a start
 * took 130 ms of CPU longer.
 */
export class Codec {
  readonly #root: protobuf.Root;

  /** @param set a file of proto/gen. Throws when it is missing. */
  constructor(set: 'api.json' | 'shim.json') {
    const file = join(protoDirectory(), 'gen', set);
    this.#root = protobuf.Root.fromJSON(JSON.parse(readFileSync(file, 'utf8')) as protobuf.INamespace);
  }

  /** @param name with its package */
  service(name: string): Record<string, Method> {
    const methods = this.#root.lookupService(name).methodsArray.map((method): [string, Method] => {
      const { resolvedRequestType, resolvedResponseType } = method.resolve() as protobuf.Method;
      if (resolvedRequestType === null || resolvedResponseType === null)
        throw new Error(`${name}.${method.name}: its messages are not in the set`);
      const [request, response] = [messageOf(resolvedRequestType), messageOf(resolvedResponseType)];
      return [
        method.name,
        {
          path: `/${name}/${method.name}`,
          requestStream: method.requestStream === true,
          responseStream: method.responseStream === true,
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
    return messageOf(this.#root.lookupType(name));
  }
}

function messageOf(type: protobuf.Type): Message<object, object> {
  return {
    // protobufjs writes into a Buffer where there are Buffers.
    serialize: (message) => type.encode(type.fromObject(message)).finish() as Buffer,
    deserialize: (bytes) => type.toObject(type.decode(bytes), OUTPUT),
  };
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
