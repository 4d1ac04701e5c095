import { Codec, type Service } from './codec.ts';
import type { NodeDefinition } from './gen/berth/v1/Node.ts';
import type { ImageServiceDefinition } from './gen/runtime/v1/ImageService.ts';
import type { RuntimeServiceDefinition } from './gen/runtime/v1/RuntimeService.ts';

/** The services on berthd's socket: method definitions with their (de)serializers, for server and client. */
export interface Protos {
  /** CRI's `runtime.v1.RuntimeService`. */
  readonly runtimeService: Service<RuntimeServiceDefinition>;
  /** CRI's `runtime.v1.ImageService`. */
  readonly imageService: Service<ImageServiceDefinition>;
  /** `berth.v1.Node`: what CRI cannot express. */
  readonly node: Service<NodeDefinition>;
}

/** Reads what `npm run gen` made of `proto/cri.proto` and `proto/berth.proto`. Throws when it is missing. */
export function loadProtos(): Protos {
  const codec = new Codec('api.json');
  // The generated types say what the services of these two files hold.
  return {
    runtimeService: codec.service('runtime.v1.RuntimeService'),
    imageService: codec.service('runtime.v1.ImageService'),
    node: codec.service('berth.v1.Node'),
  } as unknown as Protos;
}
