import { BerthError, kindOf } from '../../errors.ts';
import { type Descriptor, digestOf, parseManifest } from '../manifest.ts';
import type { RegistryClient } from '../registry/client.ts';
import type { Signature } from './verify.ts';

const PAYLOAD_TYPE = 'application/vnd.dev.cosign.simplesigning.v1+json';
const SIGNATURE = 'dev.cosignproject.cosign/signature';
/** Bytes of one payload; cosign writes some 250 and what its user adds. */
const MAX_PAYLOAD = 64 * 1024;
/** Signatures of one image that are looked at. */
const MAX_SIGNATURES = 50;

/**
 * The signatures that cosign has put beside an image: in the same repository, under a tag made of the image's
 * digest (its SIGNATURE_SPEC.md, "Tag-based Discovery"). None when there is no such tag.
 *
 * @throws BerthError as the registry's client does; `invalid` for what is no such manifest
 */
export async function* cosignSignatures(
  client: Pick<RegistryClient, 'manifest' | 'blob'>,
  digest: string,
  signal: AbortSignal,
): AsyncGenerator<Signature> {
  const tag = `${digest.replace(':', '-')}.sig`;
  const found = await client.manifest(tag, signal).catch((e: unknown) => {
    if (kindOf(e) === 'notFound') return undefined;
    throw e;
  });
  if (found === undefined) return;
  const layers = parseManifest(found.bytes, tag).layers.filter(({ mediaType }) => mediaType === PAYLOAD_TYPE);
  for (const layer of layers.slice(0, MAX_SIGNATURES)) {
    const signature = layer.annotations?.[SIGNATURE];
    if (signature === undefined) continue;
    yield { payload: await payloadOf(client, layer, signal), signature: Buffer.from(signature, 'base64') };
  }
}

async function payloadOf(
  client: Pick<RegistryClient, 'blob'>,
  layer: Descriptor,
  signal: AbortSignal,
): Promise<Buffer> {
  const wrong = (problem: string): BerthError =>
    new BerthError('invalid', `signature ${layer.digest}: ${problem}`);
  if (layer.size > MAX_PAYLOAD) throw wrong(`has ${layer.size} bytes, more than ${MAX_PAYLOAD}`);
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of client.blob(layer, signal)) {
    size += chunk.length;
    if (size > layer.size) throw wrong(`has more than ${layer.size} bytes`);
    chunks.push(chunk);
  }
  const payload = Buffer.concat(chunks);
  if (digestOf(payload, layer.digest) !== layer.digest) throw wrong('arrived with another digest');
  return payload;
}
