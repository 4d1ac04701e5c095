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
  const pem = await readFile(path).catch((e: unknown) => {
    throw noKey(path, e);
  });
  return parseKey(pem, path);
}

/**
 * The public key of one PEM file's bytes.
 *
 * @param path for errors
 * @throws BerthError `precondition` as `readKeys` does
 */
export function parseKey(pem: Buffer, path: string): KeyObject {
  let key: KeyObject;
  try {
    key = createPublicKey(pem);
  } catch (e: unknown) {
    throw noKey(path, e);
  }
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = key;
  const isKnown =
    type === 'ed25519' ||
    (type === 'ec' && details?.namedCurve === 'prime256v1') ||
    (type === 'rsa' && (details?.modulusLength ?? 0) >= MIN_RSA_BITS);
  if (isKnown) return key;
  throw new BerthError('precondition', `${path}: must be a key of ECDSA P-256, Ed25519 or RSA of 2048 bits`);
}

function noKey(path: string, cause: unknown): BerthError {
  return new BerthError('precondition', `${path}: is no public key: ${messageOf(cause)}`, { cause });
}
