import { X509Certificate } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import type { SecureContext } from 'node:tls';
import { isErrno } from '../../errors.ts';
import { tls as nodeTls } from '../../util/node-http.ts';
import type { TlsOptions } from './hosts.ts';

/**
 * Where systems keep their certificate authorities as one file: Debian, Fedora and RHEL, SUSE, RHEL's
 * extracted form, Alpine. The first that exists counts (the list of Go's crypto/x509, root_linux.go).
 */
const SYSTEM_BUNDLES = [
  '/etc/ssl/certs/ca-certificates.crt',
  '/etc/pki/tls/certs/ca-bundle.crt',
  '/etc/ssl/ca-bundle.pem',
  '/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem',
  '/etc/ssl/cert.pem',
];

/** Contexts that are remembered: one for each way in which hosts.toml files ask for TLS. */
const MAX_CONTEXTS = 64;

/**
 * The certificate authorities that a registry's certificate may come from: the system's, which
 * administrators change by update-ca-certificates, or those of Node.js where there are none; and those of
 * a hosts.toml beside them, since a redirect may lead to a public store.
 *
 * Parsing them takes some milliseconds of the event loop, so the results are kept until the file changes.
 */
export class Trust {
  readonly #files: readonly string[];
  #bundle: { path: string; changed: number; certificates: string[] } | undefined;
  readonly #contexts = new Map<string, SecureContext>();

  /** @param env SSL_CERT_FILE names a file to be used instead of the system's, as for OpenSSL and Go */
  constructor(env: Readonly<Record<string, string | undefined>> = process.env) {
    this.#files = env.SSL_CERT_FILE ? [env.SSL_CERT_FILE] : SYSTEM_BUNDLES;
  }

  /** What a connection with these options uses. @throws Error of OpenSSL when a certificate or key is damaged */
  async context(tls: TlsOptions): Promise<SecureContext> {
    const authorities = await this.#authorities();
    const key = JSON.stringify([tls.ca, tls.client]);
    const known = this.#contexts.get(key);
    if (known !== undefined) return known;
    // OpenSSL passes over an authority that it cannot read.
    for (const ca of tls.ca ?? []) new X509Certificate(ca);
    const context = nodeTls().createSecureContext({
      ca: [...authorities, ...(tls.ca ?? [])],
      ...(tls.client === undefined ? {} : { cert: tls.client.certs, key: tls.client.keys }),
    });
    if (this.#contexts.size >= MAX_CONTEXTS) this.#contexts.clear();
    this.#contexts.set(key, context);
    return context;
  }

  async #authorities(): Promise<readonly string[]> {
    for (const path of this.#files) {
      try {
        const { mtimeMs: changed } = await stat(path);
        if (this.#bundle?.path === path && this.#bundle.changed === changed) return this.#bundle.certificates;
        const certificates = certificatesOf(await readFile(path, 'latin1'));
        this.#bundle = { path, changed, certificates };
        this.#contexts.clear();
        return certificates;
      } catch (e: unknown) {
        if (!isErrno(e, 'ENOENT', 'ENOTDIR', 'EACCES')) throw e;
      }
    }
    return nodeTls().rootCertificates;
  }
}

/** The certificates of a PEM file, without its comments; OpenSSL reads many short texts faster than a long one. */
function certificatesOf(pem: string): string[] {
  return (
    pem.match(/-----BEGIN (?:TRUSTED )?CERTIFICATE-----[^-]+-----END (?:TRUSTED )?CERTIFICATE-----/g) ?? []
  );
}
