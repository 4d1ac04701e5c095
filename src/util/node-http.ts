import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);

/**
 * Node's http and https. An `import` of a built-in module asks for all of its exports, and one of http's is a
 * WebSocket that Node loads when it is asked for, with all of its fetch: 10 MB and 25 ms in a daemon that
 * uses neither (Node 24). `require` leaves it where it is. The same holds for TLS and its list of authorities, which
 * a start need not wait for: a registry is asked later, if at all.
 */
export function http(): typeof import('node:http') {
  return require('node:http') as typeof import('node:http');
}

/** Node's https. */
export function https(): typeof import('node:https') {
  return require('node:https') as typeof import('node:https');
}

/** Node's TLS. */
export function tls(): typeof import('node:tls') {
  return require('node:tls') as typeof import('node:tls');
}
