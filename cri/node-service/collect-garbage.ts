import type { CollectGarbageRequest__Output } from '../../proto/gen/berth/v1/CollectGarbageRequest.ts';
import type { CollectGarbageResponse } from '../../proto/gen/berth/v1/CollectGarbageResponse.ts';
import type { Services } from '../../src/services.ts';

/** CollectGarbage: at once what happens by itself within a minute; images only when they are asked for. */
export async function collectGarbageRpc(
  s: Services,
  request: CollectGarbageRequest__Output,
): Promise<CollectGarbageResponse> {
  const { images, freedBytes } = await s.images.prune({ images: request.images });
  return {
    images: images.map(({ id, repoTags, repoDigests }) => ({ id, names: [...repoTags, ...repoDigests] })),
    freed_bytes: String(freedBytes),
  };
}
