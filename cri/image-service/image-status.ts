import type { ImageStatusRequest__Output } from '../../proto/gen/runtime/v1/ImageStatusRequest.ts';
import type { ImageStatusResponse } from '../../proto/gen/runtime/v1/ImageStatusResponse.ts';
import { invalid } from '../../src/errors.ts';
import type { Services } from '../../src/services.ts';
import { parseOci } from '../../src/spec/json.ts';
import { verboseInfo } from '../info.ts';
import { toImage } from '../mapping/image.ts';

/** ImageStatus. */
export async function imageStatus(
  s: Services,
  request: ImageStatusRequest__Output,
): Promise<ImageStatusResponse> {
  const name = request.image?.image ?? '';
  if (name === '') throw invalid('image.image', 'is required');
  const image = s.images.get(name);
  // Absent is an answer, not an error: the kubelet then pulls.
  if (image === undefined) return { image: null };
  return {
    image: toImage(image),
    info: request.verbose
      ? verboseInfo({
          chainID: image.chainIds.at(-1) ?? '',
          chainIDs: image.chainIds,
          imageSpec: parseOci(await s.images.rawConfig(image)),
        })
      : {},
  };
}
