import { createPublicKey, type KeyObject } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { BerthError, messageOf } from '../../errors.ts';

/** Bits of the shortest RSA key that counts. */
const MIN_RSA_BITS = 2048;

/**
 * The public keys of PEM files, as `cosign generate-key-pair` and `openssl pkey -pubout` write them.
 *
 * @throws BerthError `precondition` that names the file that has none, or one of a kind that is not known here
 */
export function readKeys(paths: readonly string[]): Promise<KeyObject[]> {
  return Promise.all(paths.map(readKey));
}

async function readKey(path: string): Promise<KeyObject> {
  const key = await readFile(path)
    .then((pem) => createPublicKey(pem))
    .catch((e: unknown) => {
      throw new BerthError('precondition', `${path}: is no public key: ${messageOf(e)}`, { cause: e });
    });
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = key;
  const isKnown =
    type === 'ed25519' ||
    (type === 'ec' && details?.namedCurve === 'prime256v1') ||
    (type === 'rsa' && (details?.modulusLength ?? 0) >= MIN_RSA_BITS);
  if (isKnown) return key;
  throw new BerthError('precondition', `${path}: must be a key of ECDSA P-256, Ed25519 or RSA of 2048 bits`);
}
