import { type BerthError, invalid } from '../errors.ts';

/**
 * A name of an image, normalised: the registry's host is always there. Docker Hub's short names mean
 * `docker.io` and, with a single part, its `library/`.
 */
export interface Reference {
  /** Host with optional port, such as `docker.io`, `localhost:5000`, `[::1]:5000`. */
  host: string;
  /** Path in the registry, such as `library/busybox`. */
  path: string;
  /** Present unless the name has only a digest. */
  tag?: string;
  digest?: string;
}

// The grammar of the reference implementation of the distribution project (reference/reference.go).
const HOST_PART = '(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])';
const HOST = new RegExp(`^(?:${HOST_PART}(?:\\.${HOST_PART})*|\\[[a-fA-F0-9:]+\\])(?::[0-9]+)?$`);
const PATH_PART = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const TAG = /^[\w][\w.-]{0,127}$/;
const HEX_LENGTHS: Readonly<Record<string, number>> = { sha256: 64, sha512: 128 };
/** Of `host/path`, in the same grammar. */
const MAX_NAME = 255;
const MAX_REFERENCE = 1024;

/** True for `sha256:` and 64, or `sha512:` and 128, lowercase hex digits (OCI image-spec, descriptor.md). */
export function isDigest(text: string): boolean {
  const [algorithm = '', hex = '', ...rest] = text.split(':');
  return rest.length === 0 && HEX_LENGTHS[algorithm] === hex.length && /^[a-f0-9]+$/.test(hex);
}

/** True for what can only be an image id: a digest, or 64 hex digits, which the grammar of names forbids. */
export function isImageId(text: string): boolean {
  return isDigest(text) || /^[a-f0-9]{64}$/.test(text);
}

/**
 * Parses and normalises a name. Without tag and digest, the tag is `latest`.
 *
 * @throws BerthError `invalid` that says which part is wrong and what would be right
 */
export function parseReference(text: string): Reference {
  if (text === '') throw invalid('image', 'must name an image, such as "docker.io/library/busybox:1.36"');
  if (text.length > MAX_REFERENCE) throw invalid('image', `must be at most ${MAX_REFERENCE} characters`);
  if (/^[a-f0-9]{64}$/.test(text)) {
    throw invalid('image', `"${text}" is an image id; a name has a registry, a path and a tag`);
  }
  const at = text.indexOf('@');
  const digest = at === -1 ? undefined : text.slice(at + 1);
  const named = at === -1 ? text : text.slice(0, at);
  if (digest !== undefined && !isDigest(digest)) {
    throw wrong(text, `"${digest}" is no digest; it must be "sha256:" and 64 lowercase hex digits`);
  }
  // A colon in the last part is the tag's, one before is the port's.
  const colon = named.indexOf(':', named.lastIndexOf('/') + 1);
  const tag = colon === -1 ? undefined : named.slice(colon + 1);
  const name = colon === -1 ? named : named.slice(0, colon);
  if (tag !== undefined && !TAG.test(tag)) {
    throw wrong(text, `"${tag}" is no tag; it must be at most 128 letters, digits, "_", "." and "-"`);
  }
  const { host, path } = splitName(name, text);
  return {
    host,
    path,
    ...(tag !== undefined ? { tag } : digest === undefined ? { tag: 'latest' } : {}),
    ...(digest === undefined ? {} : { digest }),
  };
}

function splitName(name: string, text: string): { host: string; path: string } {
  const slash = name.indexOf('/');
  const first = slash === -1 ? '' : name.slice(0, slash);
  // The rule by which Docker tells a host from a user of its hub.
  const isHost = /[.:]/.test(first) || first === 'localhost' || first !== first.toLowerCase();
  let host = isHost ? first : 'docker.io';
  let path = isHost ? name.slice(slash + 1) : name;
  if (host === 'index.docker.io') host = 'docker.io';
  if (host === 'docker.io' && path !== '' && !path.includes('/')) path = `library/${path}`;
  if (!HOST.test(host)) throw wrong(text, `"${host}" is no registry host`);
  for (const part of path.split('/')) {
    if (PATH_PART.test(part)) continue;
    const hint = part !== part.toLowerCase() ? 'must be lowercase' : 'is no part of a repository path';
    throw wrong(text, part === '' ? 'the repository path has an empty part' : `"${part}" ${hint}`);
  }
  if (host.length + 1 + path.length > MAX_NAME)
    throw wrong(text, `host and path are longer than ${MAX_NAME}`);
  return { host, path };
}

/** `host/path`, without tag and digest. */
export function repository(reference: Reference): string {
  return `${reference.host}/${reference.path}`;
}

/** `host/path:tag`, or undefined for a name that has only a digest. */
export function taggedName(reference: Reference): string | undefined {
  return reference.tag === undefined ? undefined : `${repository(reference)}:${reference.tag}`;
}

/** The normalised text; with both, the digest follows the tag. */
export function formatReference(reference: Reference): string {
  const named = taggedName(reference) ?? repository(reference);
  return reference.digest === undefined ? named : `${named}@${reference.digest}`;
}

function wrong(text: string, problem: string): BerthError {
  return invalid('image', `"${text.slice(0, 300)}" is no image name: ${problem}`);
}
