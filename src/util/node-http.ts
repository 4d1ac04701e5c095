import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);

/**
 * Node's http and https. An `import` of a built-in module asks for all of its exports, and one of http's is a
 * WebSocket that Node loads when it is asked for, with all of its fetch: 10 MB and 25 ms in a daemon that
 * uses neither (Node 24). `require` leaves it where it is.
 */
export const http = require('node:http') as typeof import('node:http');
export const https = require('node:https') as typeof import('node:https');
