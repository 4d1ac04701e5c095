import { once } from 'node:events';
import { readdir } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import WebSocket from 'ws';
import { withNamespace } from '../../src/sys/namespaces.ts';
import { Berthd } from '../support/berthd.ts';
import { type Pod, Pods, refusal, sh, until } from '../support/pods.ts';
import { forwardOverSpdy, forwardOverTunnel, type PortForwardClient } from '../support/port-forward.ts';

let berthd: Berthd;
let pods: Pods;
let pod: Pod;
const servers: Server[] = [];

beforeAll(async () => {
  berthd = await Berthd.start({ tables: '[streaming]\nidle_timeout = 4' });
  await berthd.importBusybox();
  pods = new Pods(berthd);
});
beforeEach(async () => {
  pod = await pods.run();
});
afterEach(async () => {
  for (const server of servers.splice(0)) server.close();
  expect(await berthd.removeAllPods()).toEqual([]);
});
afterAll(async () => expect(await berthd.close()).toEqual([]));

/** Serves a port of every address in the pod's network. */
async function serve(port: number, onConnection: (socket: Socket) => void): Promise<void> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => {});
    onConnection(socket);
  });
  const netns = `${berthd.dir}/state/sandboxes/${pod.id}/ns/net`;
  // The socket is made at once, and stays there.
  withNamespace(netns, 'net', () => void server.listen(port));
  await once(server, 'listening');
  servers.push(server);
}

async function urlOf(port: number[] = []): Promise<string> {
  return (await berthd.client.runtime('PortForward', { pod_sandbox_id: pod.id, port })).url;
}

const answered = (text: string) => `answer to ${text}`;

describe.each([
  ['SPDY', forwardOverSpdy],
  ['SPDY in WebSocket', forwardOverTunnel],
])('port-forward over %s', (_name, connect: (url: string) => Promise<PortForwardClient>) => {
  let client: PortForwardClient;
  beforeEach(async () => {
    client = await connect(await urlOf());
  });
  afterEach(() => client.destroy());

  it('ends each half by itself, either way', async () => {
    const heard: string[] = [];
    await serve(7000, (socket) => {
      // Says its own before it hears the end, and answers after it.
      socket.write('hello ');
      socket.on('data', (chunk) => heard.push(String(chunk)));
      socket.on('end', () => socket.end(answered(heard.join(''))));
    });
    const connection = await client.open(7000);
    await until('the greeting', () => connection.text === 'hello ');
    connection.send('que');
    connection.send('stion');
    connection.end();
    await until('the end', () => connection.ended && connection.done);
    expect([connection.text, connection.error, connection.reset]).toEqual([
      'hello answer to question',
      '',
      false,
    ]);
  });

  it('hears on after the port has ended its half', async () => {
    let heard = '';
    await serve(7000, (socket) => {
      socket.end('early');
      socket.on('data', (chunk) => (heard += String(chunk)));
    });
    const connection = await client.open(7000);
    await until('the end', () => connection.ended);
    connection.send('late');
    await until('it was heard', () => heard === 'late');
    connection.end();
    await until('all is done', () => connection.done);
    expect(connection.text).toBe('early');
  });

  it('carries many connections to several ports at once, each whole', async () => {
    for (const port of [7001, 7002, 7003]) {
      await serve(port, (socket) => {
        socket.write(`${port}:`);
        socket.pipe(socket);
      });
    }
    const body = Buffer.alloc(300_000, 'z');
    const connections = await Promise.all(
      Array.from({ length: 60 }, async (_, i) => {
        const connection = await client.open(7001 + (i % 3));
        connection.send(`${i}-`);
        connection.send(body);
        connection.end();
        return connection;
      }),
    );
    await until('all ends', () => connections.every((c) => c.done));
    for (const [i, { text, error }] of connections.entries()) {
      expect([text.slice(0, 12), text.length, error]).toEqual([
        `${7001 + (i % 3)}:${i}-zzzzzzz`.slice(0, 12),
        5 + `${i}-`.length + body.length,
        '',
      ]);
    }
  });

  it('says that nothing listens, and goes on with the other connections', async () => {
    await serve(7000, (socket) => socket.pipe(socket));
    const [good, bad] = [await client.open(7000), await client.open(7999)];
    await until('the refusal', () => bad.done);
    expect(bad.error).toBe(
      'cannot connect to port 7999 of the pod: connection refused: nothing listens on 127.0.0.1 or ::1',
    );
    good.send('still here');
    good.end();
    await until('the answer', () => good.done);
    expect(good.text).toBe('still here');
  });

  it('passes on a reset either way, and keeps it from the other connections', async () => {
    let reset: unknown;
    await serve(7000, (socket) => socket.pipe(socket));
    await serve(7001, (socket) => socket.once('data', () => socket.resetAndDestroy()));
    await serve(7002, (socket) => {
      socket.on('error', (e) => (reset = e));
      socket.resume();
    });
    const [good, bad, left] = [await client.open(7000), await client.open(7001), await client.open(7002)];
    bad.send('x');
    await until('the reset', () => bad.reset);
    expect(bad.error).toBe('');
    left.send('x');
    left.resetIt();
    await until(
      'the reset at the port',
      () => (reset as { code?: string } | undefined)?.code === 'ECONNRESET',
    );
    good.send('still here');
    good.end();
    await until('the answer', () => good.done);
    expect(good.text).toBe('still here');
  });

  it('lets go of the ports when the client has gone', async () => {
    const open = new Set<Socket>();
    await serve(7000, (socket) => {
      open.add(socket);
      socket.resume();
      socket.on('close', () => open.delete(socket));
    });
    for (let i = 0; i < 5; i++) (await client.open(7000)).send('x');
    await until('connections', () => open.size === 5);
    client.destroy();
    await until('no connection', () => open.size === 0);
  });
});

describe('port-forward', () => {
  it.each([
    ['127.0.0.1', 'IPv4'],
    ['[::1]', 'IPv6'],
  ])('reaches a program that listens on %s alone', async (address) => {
    const script = `mkdir /w; echo "from ${address}" >/w/index.html; exec httpd -f -p ${address}:8080 -h /w`;
    const container = await pods.start(pod, sh(script));
    await until('it listens', async () =>
      (await pods.ask(container, 'cat /proc/net/tcp /proc/net/tcp6')).includes(':1F90'),
    );
    const client = await forwardOverSpdy(await urlOf());
    const connection = await client.open(8080);
    connection.send('GET /index.html HTTP/1.0\r\n\r\n');
    await until('the page', () => connection.text.endsWith(`from ${address}\n`));
    client.destroy();
  });

  it('takes streams without a request id in pairs, as old clients send them', async () => {
    await serve(7000, (socket) => socket.pipe(socket));
    const client = await forwardOverSpdy(await urlOf());
    const connection = await client.open(7000, { requestId: false });
    connection.send('old');
    connection.end();
    await until('the answer', () => connection.done);
    expect(connection.text).toBe('old');
    client.destroy();
  });

  it('refuses streams without a port', async () => {
    const client = await forwardOverSpdy(await urlOf());
    const connections = await Promise.all([0, 65536, Number.NaN, -1, 1.5].map((port) => client.open(port)));
    await until('resets', () => connections.every((c) => c.reset));
    client.destroy();
  });

  it('closes a connection without traffic after the idle timeout, and none that has some', async () => {
    await serve(7000, (socket) => socket.pipe(socket));
    const [idle, busy] = [await forwardOverSpdy(await urlOf()), await forwardOverSpdy(await urlOf())];
    await idle.open(7000);
    const connection = await busy.open(7000);
    let closed = false;
    void busy.closed.then(() => (closed = true));
    const beat = setInterval(() => connection.send('.'), 300);
    await idle.closed;
    clearInterval(beat);
    expect([closed, connection.text.length > 0]).toEqual([false, true]);
    busy.destroy();
  });

  it.each(['v4.channel.k8s.io', 'v4.base64.channel.k8s.io', 'portforward.k8s.io'])(
    'over WebSocket with %s has two channels for each port of the request',
    async (protocol) => {
      await serve(7000, (socket) => {
        socket.once('data', (chunk) => socket.end(answered(String(chunk))));
      });
      const socket = new WebSocket((await urlOf([7000, 7999])).replace(/^http/, 'ws'), protocol);
      const got: Buffer[][] = [[], [], [], []];
      const base64 = protocol.includes('base64');
      socket.on('message', (message: Buffer) => {
        const channel = (message[0] ?? 0) - (base64 ? 48 : 0);
        const text = message.toString('latin1', 1);
        got[channel]?.push(base64 ? Buffer.from(text, 'base64') : message.subarray(1));
      });
      await once(socket, 'open');
      socket.send(base64 ? `0${Buffer.from('q').toString('base64')}` : Buffer.from('\0q'));
      await once(socket, 'close');
      const [data0, error0, data1, error1] = got.map((parts) => Buffer.concat(parts).toString('latin1'));
      expect([data0, error0, data1]).toEqual(['\x58\x1banswer to q', '\x58\x1b', '\x3f\x1f']);
      expect(error1).toContain('connection refused');
    },
  );

  it('refuses a pod that is stopped or not there', async () => {
    await pods.stopPod(pod);
    expect((await refusal(urlOf())).kind).toBe('precondition');
    const call = berthd.client.runtime('PortForward', { pod_sandbox_id: 'f'.repeat(64) });
    expect((await refusal(call)).kind).toBe('notFound');
  });

  it('leaves no descriptor of the daemon open', async () => {
    await serve(7000, (socket) => socket.pipe(socket));
    const count = async () => (await readdir(`/proc/${berthd.pid}/fd`)).length;
    const round = async () => {
      const client = await forwardOverSpdy(await urlOf());
      const connections = await Promise.all([7000, 7000, 7999].map((port) => client.open(port)));
      for (const connection of connections) connection.end();
      await until('all ends', () => connections.every((c) => c.done));
      client.destroy();
      await client.closed;
    };
    await round();
    const before = await count();
    for (let i = 0; i < 10; i++) await round();
    await until('descriptors are closed', async () => (await count()) <= before);
  });
});
