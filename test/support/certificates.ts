import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A certificate authority of a test's own, in PEM files. */
export interface Authority {
  /** Its certificate. */
  ca: string;
  /** A new certificate for these names or addresses. */
  issue(...names: string[]): { cert: string; key: string };
  close(): void;
}

/** By openssl(1). */
export function makeAuthority(): Authority {
  const dir = mkdtempSync(join(tmpdir(), 'berth-ca-'));
  const at = (name: string): string => join(dir, name);
  const openssl = (...args: string[]): Buffer => execFileSync('openssl', args, { stdio: 'pipe' });
  const fresh = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  openssl(
    'req',
    '-x509',
    ...fresh,
    '-keyout',
    at('ca.key'),
    '-out',
    at('ca.pem'),
    '-subj',
    '/CN=test',
    '-days',
    '2',
  );
  let issued = 0;
  return {
    ca: at('ca.pem'),
    issue: (...names) => {
      issued += 1;
      const [key, request, cert, extensions] = ['key', 'csr', 'pem', 'ext'].map((end) =>
        at(`${issued}.${end}`),
      ) as [string, string, string, string];
      const alternatives = names.map((name) => (/^[\d.]+$/.test(name) ? `IP:${name}` : `DNS:${name}`));
      writeFileSync(extensions, `subjectAltName = ${alternatives.join(',')}\n`);
      openssl('req', ...fresh, '-keyout', key, '-out', request, '-subj', `/CN=${names[0]}`);
      const signer = ['-CA', at('ca.pem'), '-CAkey', at('ca.key'), '-CAcreateserial', '-days', '2'];
      openssl('x509', '-req', '-in', request, ...signer, '-extfile', extensions, '-out', cert);
      return { cert, key };
    },
    close: () => rmSync(dir, { recursive: true, force: true }),
  };
}
