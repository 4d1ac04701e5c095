import type { ExportImagesRequest__Output } from '../../proto/gen/berth/v1/ExportImagesRequest.ts';
import type { ExportImagesResponse } from '../../proto/gen/berth/v1/ExportImagesResponse.ts';
import type { Services } from '../../src/services.ts';

/** ExportImages: an archive in pieces, no faster than the client takes them. */
export async function exportImagesRpc(
  s: Services,
  request: ExportImagesRequest__Output,
  send: (message: ExportImagesResponse) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  await s.images.exportImages(request.images, (chunk) => send({ chunk: Buffer.from(chunk) }), signal);
}
