import type { ImportImageRequest__Output } from '../../proto/gen/berth/v1/ImportImageRequest.ts';
import type { ImportImageResponse } from '../../proto/gen/berth/v1/ImportImageResponse.ts';
import { invalid } from '../../src/errors.ts';
import type { Services } from '../../src/services.ts';

/** ImportImage: an archive in pieces; the first message may name the image. A failure keeps nothing. */
export async function importImage(
  s: Services,
  requests: AsyncIterable<ImportImageRequest__Output>,
  signal: AbortSignal,
): Promise<ImportImageResponse> {
  const messages = requests[Symbol.asyncIterator]();
  const first = await messages.next();
  if (first.done === true) throw invalid('chunk', 'the archive is empty');
  const name = first.value.part === 'name' ? first.value.name : undefined;
  async function* bytes() {
    if (first.value?.part === 'chunk') yield chunk(first.value);
    for (let next = await messages.next(); next.done !== true; next = await messages.next())
      yield chunk(next.value);
  }
  const images = await s.images.importArchive(bytes(), { ...(name === undefined ? {} : { name }), signal });
  return {
    images: images.map((image) => ({ id: image.id, names: [...image.repoTags, ...image.repoDigests] })),
  };
}

function chunk(message: ImportImageRequest__Output): Uint8Array {
  if (message.part !== 'chunk' || message.chunk === undefined)
    throw invalid('name', 'belongs into the first message only');
  return message.chunk;
}
