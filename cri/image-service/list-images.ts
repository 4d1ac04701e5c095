import type { ListImagesRequest__Output } from '../../proto/gen/runtime/v1/ListImagesRequest.ts';
import type { ListImagesResponse } from '../../proto/gen/runtime/v1/ListImagesResponse.ts';
import type { Services } from '../../src/services.ts';
import { toImage } from '../mapping/image.ts';

/** ListImages. */
export async function listImages(
  s: Services,
  request: ListImagesRequest__Output,
): Promise<ListImagesResponse> {
  return { images: s.images.list(request.filter?.image?.image || undefined).map(toImage) };
}
