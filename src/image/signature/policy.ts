import { BerthError, kindOf, messageOf } from '../../errors.ts';
import { globMatcher } from '../../util/globs.ts';
import { formatReference, type Reference, repository } from '../reference.ts';
import type { RegistryClient } from '../registry/client.ts';
import { cosignSignatures } from './cosign.ts';
import { readKeys } from './keys.ts';
import { type Expected, findFault } from './verify.ts';

/** What images of some names must have to be pulled. */
export interface SignatureRule {
  /** Globs, as in `globMatcher`, of repositories with their registry, such as `docker.io/library/*`. */
  names: readonly string[];
  /** `signed`: a signature by one of `keys`. */
  policy: 'accept' | 'reject' | 'signed';
  /** PEM files of public keys, absolute. */
  keys: readonly string[];
  /** Globs of the repositories that a signature may be for. None: the image's own. */
  identities: readonly string[];
}

interface Rule extends SignatureRule {
  isFor(repository: string): boolean;
}

/** The image that is being pulled: what its name means now, and the registry that said so. */
export interface Pulled {
  reference: Reference;
  /** Of the index or manifest. */
  digest: string;
  client: Pick<RegistryClient, 'manifest' | 'blob'>;
  signal: AbortSignal;
}

/** Which images may be pulled by whose signature. Keys are read afresh each time. */
export class SignaturePolicy {
  readonly #rules: readonly Rule[];

  /** @param rules the first that is for a name counts; a name that none is for is accepted */
  constructor(rules: readonly SignatureRule[]) {
    this.#rules = rules.map((rule) => ({ ...rule, isFor: globMatcher(rule.names) }));
  }

  /**
   * @throws BerthError `signatureInvalid` beginning with SignatureValidationFailed when the image may not be
   * had; `registryUnavailable` when it cannot be found out now
   */
  async check(pulled: Pulled): Promise<void> {
    const { reference, digest } = pulled;
    const rule = this.#rules.find(({ isFor }) => isFor(repository(reference)));
    if (rule === undefined || rule.policy === 'accept') return;
    const fault = rule.policy === 'reject' ? 'the configuration rejects it' : await faultOf(rule, pulled);
    if (fault === undefined) return;
    throw refused(`${formatReference(reference)}, which is ${digest}: ${fault}`);
  }
}

async function faultOf(
  rule: Rule,
  { reference, digest, client, signal }: Pulled,
): Promise<string | undefined> {
  const own = repository(reference);
  const isIdentity =
    rule.identities.length > 0 ? globMatcher(rule.identities) : (name: string): boolean => name === own;
  const expected: Expected = { digest, tag: reference.tag, isIdentity };
  const faults: string[] = [];
  try {
    const keys = await readKeys(rule.keys);
    for await (const signature of cosignSignatures(client, digest, signal)) {
      const fault = findFault(signature, keys, expected);
      if (fault === undefined) return undefined;
      faults.push(fault);
    }
  } catch (e: unknown) {
    signal.throwIfAborted();
    // That may be over soon.
    if (kindOf(e) === 'registryUnavailable') throw e;
    return messageOf(e);
  }
  return faults.length === 0 ? 'it is not signed' : [...new Set(faults)].slice(0, 3).join('; ');
}

/** The kubelet tells this case by the message's first word (kubelet/images/types.go, ErrSignatureValidationFailed). */
function refused(problem: string): BerthError {
  return new BerthError('signatureInvalid', `SignatureValidationFailed: ${problem}`);
}
