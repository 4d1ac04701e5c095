import type { ImageFsInfoRequest__Output } from '../../proto/gen/runtime/v1/ImageFsInfoRequest.ts';
import type { ImageFsInfoResponse } from '../../proto/gen/runtime/v1/ImageFsInfoResponse.ts';
import type { Services } from '../../src/services.ts';
import { toFilesystemUsage } from '../mapping/image.ts';

/** ImageFsInfo. */
export async function imageFsInfo(
  s: Services,
  _request: ImageFsInfoRequest__Output,
): Promise<ImageFsInfoResponse> {
  const usage = toFilesystemUsage(s.images.fsInfo());
  // The same list twice says that images and writable layers share a file system.
  return { image_filesystems: [usage], container_filesystems: [usage] };
}
