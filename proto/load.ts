import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { loadPackageDefinition } from '@grpc/grpc-js';
import { loadSync, type Options } from '@grpc/proto-loader';
import type { ProtoGrpcType as BerthProto } from './gen/berth.ts';
import type { ProtoGrpcType as CriProto } from './gen/cri.ts';

/**
 * How messages look in JavaScript; `npm run gen` names the same options, so that the generated types tell
 * the truth. Fields keep the names of the .proto files. On output every field is there (absent messages are
 * null, absent lists empty), int64 and uint64 are decimal strings, enums the names of their values, and a
 * `oneof` has a member of its own that names the field in use. A number of an enum that this version does
 * not know stays a number, whatever the generated type says.
 */
export const LOAD_OPTIONS: Options = {
  keepCase: true,
  longs: String,
  enums: String,
  defaults: true,
  oneofs: true,
};

/** The services on berthd's socket, and how to call them. */
export interface Protos {
  /** CRI's `runtime.v1.RuntimeService`: method definitions with their (de)serializers, for `addService`. */
  readonly runtimeService: CriProto['runtime']['v1']['RuntimeService']['service'];
  /** CRI's `runtime.v1.ImageService`. */
  readonly imageService: CriProto['runtime']['v1']['ImageService']['service'];
  /** `berth.v1.Node`: what CRI cannot express. */
  readonly node: BerthProto['berth']['v1']['Node']['service'];
  /** Constructors `(address, credentials, options)` of the clients. */
  readonly RuntimeServiceClient: CriProto['runtime']['v1']['RuntimeService'];
  readonly ImageServiceClient: CriProto['runtime']['v1']['ImageService'];
  readonly NodeClient: BerthProto['berth']['v1']['Node'];
}

/** Where the .proto files are, from the source tree and from `dist/` alike: the build copies none. */
export function protoDirectory(): string {
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

/**
 * Reads `proto/cri.proto` and `proto/berth.proto`. It blocks for some tens of milliseconds, so a process
 * calls it once, when it starts. Throws when a file is missing or does not parse.
 */
export function loadProtos(): Protos {
  const definition = loadSync(['cri.proto', 'berth.proto'], {
    ...LOAD_OPTIONS,
    includeDirs: [protoDirectory()],
  });
  // grpc-js types every loaded package alike; the generated types say what these two files hold.
  const { runtime, berth } = loadPackageDefinition(definition) as unknown as CriProto & BerthProto;
  return {
    runtimeService: runtime.v1.RuntimeService.service,
    imageService: runtime.v1.ImageService.service,
    node: berth.v1.Node.service,
    RuntimeServiceClient: runtime.v1.RuntimeService,
    ImageServiceClient: runtime.v1.ImageService,
    NodeClient: berth.v1.Node,
  };
}
