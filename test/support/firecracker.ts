/**
 * A stand-in for Firecracker, to be run as a program: it listens where it is told, takes calls in the order that
 * Firecracker's documentation demands, refuses all others with a fault, checks bodies by the required and
 * known members of its OpenAPI description, and after the start forwards its vsock socket to an agent that echoes; with
 * FIRECRACKER_GUEST in its environment it has QEMU run the guest, and forwards to that one's agent.
 * What it was asked goes to `calls` beside its API socket, one JSON line each.
 */
import { appendFileSync, existsSync } from 'node:fs';
import { createServer, type IncomingMessage } from 'node:http';
import { createServer as createSocketServer, type Socket } from 'node:net';
import path from 'node:path';
import { Guest } from './firecracker-qemu.ts';

/** Required members first, then those that may be there. */
const BODIES: Readonly<Record<string, readonly [readonly string[], readonly string[]]>> = {
  '/machine-config': [
    ['vcpu_count', 'mem_size_mib'],
    ['smt', 'track_dirty_pages', 'cpu_template', 'huge_pages'],
  ],
  '/boot-source': [['kernel_image_path'], ['initrd_path', 'boot_args']],
  '/drives': [
    ['drive_id', 'is_root_device', 'path_on_host', 'is_read_only'],
    ['partuuid', 'cache_type', 'rate_limiter', 'io_engine'],
  ],
  '/network-interfaces': [['iface_id', 'host_dev_name'], ['guest_mac']],
  '/vsock': [['guest_cid', 'uds_path'], ['vsock_id']],
  '/entropy': [[], ['rate_limiter']],
  '/balloon': [['amount_mib', 'deflate_on_oom'], ['stats_polling_interval_s']],
  '/actions': [['action_type'], []],
};
const PATCHED = ['drive_id', 'path_on_host'];

const args = process.argv.slice(2);
const option = (name: string): string => args[args.indexOf(name) + 1] ?? '';
const socket = option('--api-sock');
const log = path.join(path.dirname(socket), 'calls');
const drives = new Map<string, Record<string, unknown>>();
const bodies = new Map<string, Record<string, unknown>>();
const nics: Record<string, unknown>[] = [];
let guest: Guest | undefined;
const done = new Set<string>();
let isRunning = false;

class Fault extends Error {}

function put(url: string, body: Record<string, unknown>): void {
  const [, kind = '', id] = url.split('/');
  const shape = BODIES[`/${kind}`];
  if (shape === undefined) throw new Fault(`Invalid request method and/or path: PUT ${url}`);
  const [required, optional] = shape;
  for (const name of required) if (!(name in body)) throw new Fault(`missing field \`${name}\``);
  for (const name of Object.keys(body)) {
    if (![...required, ...optional].includes(name)) throw new Fault(`unknown field \`${name}\``);
  }
  if (isRunning) {
    throw new Fault('The requested operation is not supported after starting the microVM.');
  }
  if (kind === 'drives') {
    if (id !== body.drive_id || !/^\w+$/.test(String(id)))
      throw new Fault('The id from the path does not match.');
    if (!existsSync(String(body.path_on_host))) throw new Fault('Unable to open the block device.');
    if (body.is_root_device === true && drives.size > 0)
      throw new Fault('A root block device already exists');
    drives.set(String(id), body);
  }
  if (kind === 'network-interfaces' && id !== body.iface_id) throw new Fault('The id does not match.');
  if (kind === 'actions') {
    if (!done.has('boot-source')) throw new Fault('Cannot start microvm without kernel configuration.');
    isRunning = true;
    if (process.env.FIRECRACKER_GUEST !== undefined) startGuest();
    serveGuest(vsockPath);
  }
  if (kind === 'vsock') vsockPath = String(body.uds_path);
  bodies.set(kind, body);
  if (kind === 'network-interfaces') nics.push(body);
  done.add(kind);
}

function startGuest(): void {
  guest = new Guest(path.dirname(socket), {
    machine: bodies.get('machine-config') ?? {},
    boot: bodies.get('boot-source') ?? {},
    drives: [...drives.values()],
    nics,
  });
  // As Firecracker ends in good order when its guest resets.
  guest.process.on('exit', (code) => process.exit(code ?? 1));
}

async function patch(url: string, body: Record<string, unknown>): Promise<void> {
  const [, kind, id = ''] = url.split('/');
  if (kind !== 'drives' || Object.keys(body).some((name) => !PATCHED.includes(name)))
    throw new Fault('bad PATCH');
  if (!isRunning) throw new Fault('The requested operation is not supported before starting the microVM.');
  const drive = drives.get(id);
  if (drive === undefined) throw new Fault('Invalid block device ID!');
  await guest?.exchange(id, String(body.path_on_host), drive.is_read_only === true);
}

let vsockPath = '';

/** Answers `CONNECT`: port 1024 is the agent's from the second try on, and says something at once. */
function serveGuest(at: string): void {
  let tries = 0;
  createSocketServer((connection) => {
    connection.on('error', () => {});
    connection.once('data', (chunk) => {
      if (String(chunk) !== 'CONNECT 1024\n' || ++tries < 2) return connection.destroy();
      void join(connection);
      return undefined;
    });
  }).listen(at);
}

async function join(connection: Socket): Promise<void> {
  const agent = await guest?.agent();
  connection.write('OK 1073741824\n');
  if (agent === undefined) {
    connection.write('hello ');
    connection.pipe(connection);
    return;
  }
  connection.pipe(agent);
  agent.pipe(connection);
  agent.on('error', () => connection.destroy());
}

async function read(request: IncomingMessage): Promise<Record<string, unknown>> {
  let text = '';
  for await (const chunk of request) text += chunk;
  return JSON.parse(text) as Record<string, unknown>;
}

if (process.env.FIRECRACKER_FAILS !== undefined) {
  process.stderr.write(`${process.env.FIRECRACKER_FAILS}\n`);
  process.exit(1);
}
createServer(async (request, response) => {
  const { method = '', url = '' } = request;
  const body = await read(request);
  appendFileSync(log, `${JSON.stringify({ method, path: url, body })}\n`);
  try {
    if (method === 'PUT') put(url, body);
    else await patch(url, body);
    response.writeHead(204).end();
  } catch (e: unknown) {
    response.writeHead(400, { 'Content-Type': 'application/json' });
    response.end(JSON.stringify({ fault_message: e instanceof Error ? e.message : '' }));
  }
}).listen(socket);
