import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { request } from 'node:https';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it } from 'vitest';
import WebSocket from 'ws';
import { Berthd } from '../support/berthd.ts';
import { Pods } from '../support/pods.ts';

const run = promisify(execFile);
let dir: string;
let berthd: Berthd;
let pods: Pods;

beforeAll(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'berth-tls-'));
  const alternative = 'subjectAltName=IP:127.0.0.1';
  for (const name of ['server', 'client']) {
    const files = [
      '-keyout',
      `${name}.key`,
      '-out',
      `${name}.crt`,
      '-subj',
      `/CN=${name}`,
      '-addext',
      alternative,
    ];
    await run('openssl', ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', ...files], {
      cwd: dir,
    });
  }
  const keys = `tls_cert = "${dir}/server.crt"\ntls_key = "${dir}/server.key"\ntls_client_ca = "${dir}/client.crt"`;
  berthd = await Berthd.start({ tables: `[streaming]\n${keys}` });
  await berthd.importBusybox();
  pods = new Pods(berthd);
});
afterAll(async () => {
  expect(await berthd.close()).toEqual([]);
  await rm(dir, { recursive: true });
});

it('serves those who show a certificate of the authority, and nobody else', async () => {
  const container_id = await pods.start(await pods.run());
  const execUrl = async () => {
    const exec = { container_id, cmd: ['echo', 'secret'], stdout: true };
    return (await berthd.client.runtime('Exec', exec)).url;
  };
  const url = await execUrl();
  expect(url).toMatch(/^https:\/\/127\.0\.0\.1:\d+\/exec\//);
  const ca = await readFile(`${dir}/server.crt`);
  const [cert, key] = await Promise.all([readFile(`${dir}/client.crt`), readFile(`${dir}/client.key`)]);

  const stranger = request(url, { ca });
  stranger.end();
  await expect(once(stranger, 'response')).rejects.toThrow();

  const socket = new WebSocket(url.replace(/^https/, 'wss'), 'v5.channel.k8s.io', { ca, cert, key });
  let shown = '';
  socket.on('message', (message: Buffer) => {
    if (message[0] === 1) shown += message.toString('utf8', 1);
  });
  await once(socket, 'close');
  expect(shown).toBe('secret\n');
});
