import type { PullImageRequest__Output } from '../../proto/gen/runtime/v1/PullImageRequest.ts';
import type { PullImageResponse } from '../../proto/gen/runtime/v1/PullImageResponse.ts';
import { invalid } from '../../src/errors.ts';
import type { Services } from '../../src/services.ts';

/** PullImage: answers the image's id, the same text as ImageStatus.id and ContainerStatus.image_ref. */
export async function pullImage(
  s: Services,
  request: PullImageRequest__Output,
  signal: AbortSignal,
): Promise<PullImageResponse> {
  const name = request.image?.image ?? '';
  if (name === '') throw invalid('image.image', 'is required');
  const auth = request.auth;
  const image = await s.images.pull(
    name,
    auth === null
      ? undefined
      : {
          username: auth.username,
          password: auth.password,
          auth: auth.auth,
          serverAddress: auth.server_address,
          identityToken: auth.identity_token,
          registryToken: auth.registry_token,
        },
    { signal },
  );
  return { image_ref: image.id };
}
