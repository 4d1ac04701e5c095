import { type KeyObject, verify } from 'node:crypto';
import { z } from 'zod';
import { BerthError } from '../../errors.ts';
import { parseReference, repository } from '../reference.ts';

/** What somebody has signed, and the signature. */
export interface Signature {
  payload: Buffer;
  signature: Buffer;
}

/** What a signature must be for. */
export interface Expected {
  /** Of the index or manifest that the image's name means. */
  digest: string;
  /** That it was asked for by, if any. */
  tag: string | undefined;
  /** Whether a signature for this repository counts. */
  isIdentity: (repository: string) => boolean;
}

/** "Simple signing" (containers/image, containers-signature(5)) as cosign fills it in (its SIGNATURE_SPEC.md). */
const payloadSchema = z.object({
  critical: z.object({
    type: z.literal('cosign container image signature'),
    identity: z.object({ 'docker-reference': z.string() }),
    image: z.object({ 'docker-manifest-digest': z.string() }),
  }),
});

/** Why a signature does not prove what is expected; undefined when it does. The content counts only when a key fits. */
export function findFault(
  { payload, signature }: Signature,
  keys: readonly KeyObject[],
  expected: Expected,
): string | undefined {
  if (!keys.some((key) => isSignedBy(key, payload, signature))) return 'a signature is of none of the keys';
  const parsed = payloadSchema.safeParse(parseJson(payload));
  if (!parsed.success) return 'a signature is for something else than an image';
  const { identity, image } = parsed.data.critical;
  if (image['docker-manifest-digest'] !== expected.digest)
    return `a signature is for ${JSON.stringify(image['docker-manifest-digest'])}`;
  const name = identity['docker-reference'];
  return isExpected(name, expected) ? undefined : `a signature is for ${JSON.stringify(name)}`;
}

/** The hash is SHA-256 with all but Ed25519, whose own it is to hash. ECDSA is in DER, RSA in PKCS #1 v1.5. */
function isSignedBy(key: KeyObject, payload: Buffer, signature: Buffer): boolean {
  return verify(key.asymmetricKeyType === 'ed25519' ? null : 'sha256', payload, key, signature);
}

/** cosign names the repository; a tag counts where one is given, as with the other makers of such payloads. */
function isExpected(name: string, { tag, isIdentity }: Expected): boolean {
  try {
    const signed = parseReference(name);
    const hasTag = signed.tag !== undefined && /:[^/]*$/.test(name.replace(/@.*$/, ''));
    return isIdentity(repository(signed)) && (!hasTag || tag === undefined || signed.tag === tag);
  } catch (e: unknown) {
    if (e instanceof BerthError) return false;
    throw e;
  }
}

function parseJson(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString('utf8'));
  } catch {
    return undefined;
  }
}
