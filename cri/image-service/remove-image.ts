import type { RemoveImageRequest__Output } from '../../proto/gen/runtime/v1/RemoveImageRequest.ts';
import type { RemoveImageResponse } from '../../proto/gen/runtime/v1/RemoveImageResponse.ts';
import { invalid } from '../../src/errors.ts';
import type { Services } from '../../src/services.ts';

/** RemoveImage: all names of the image. Absent is done; containers keep the content that they use. */
export async function removeImage(
  s: Services,
  request: RemoveImageRequest__Output,
): Promise<RemoveImageResponse> {
  const name = request.image?.image ?? '';
  if (name === '') throw invalid('image.image', 'is required');
  await s.images.remove(name);
  return {};
}
