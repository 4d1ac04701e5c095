import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import type { Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { headerDictionary } from '../../src/streaming/spdy/dictionary.ts';
import { Berthd } from '../support/berthd.ts';
import { Pods, refusal, runs, sh, until } from '../support/pods.ts';
import {
  exited,
  openSpdy,
  openWebSocket,
  type RemoteClient,
  upgrade,
  type Wanted,
} from '../support/remote-command.ts';
import { control, data, uint32, WireClient } from '../support/spdy-wire.ts';

let berthd: Berthd;
let pods: Pods;
let descriptorsBefore: number;

beforeAll(async () => {
  berthd = await Berthd.start();
  await berthd.importBusybox();
  pods = new Pods(berthd);
});
beforeEach(async () => {
  descriptorsBefore = await descriptors();
});
afterEach(async () => {
  expect(await berthd.removeAllPods()).toEqual([]);
  expect(await readdir(`${berthd.dir}/state/exec`).catch(() => [])).toEqual([]);
  await until('no zombie is left', async () => (await zombies()).length === 0);
  await until('descriptors are closed', async () => (await descriptors()) <= descriptorsBefore + 1);
});
afterAll(async () => expect(await berthd.close()).toEqual([]));

/** Children of the daemon that have ended and that nobody has reaped. */
async function zombies(): Promise<number[]> {
  const found: number[] = [];
  for (const task of await readdir(`/proc/${berthd.pid}/task`)) {
    const children = readFileSync(`/proc/${berthd.pid}/task/${task}/children`, 'utf8').trim().split(' ');
    found.push(...children.filter((pid) => pid !== '' && !runs(Number(pid))).map(Number));
  }
  return found;
}

/** Open descriptors of the daemon. */
const descriptors = async () => (await readdir(`/proc/${berthd.pid}/fd`)).length;

async function execUrl(container_id: string, cmd: string[], wanted: Wanted): Promise<string> {
  return (await berthd.client.runtime('Exec', { container_id, cmd, ...wanted })).url;
}

const OUTPUT: Wanted = { stdout: true, stderr: true };
const ALL: Wanted = { stdin: true, ...OUTPUT };
const TTY: Wanted = { stdin: true, stdout: true, tty: true };

/** A way to speak to the server. */
interface Transport {
  open(url: string, wanted: Wanted): Promise<RemoteClient>;
  /** Whether a client can end the input alone. */
  endsInput: boolean;
}

const TRANSPORTS: [string, Transport][] = [
  ['SPDY v4', { open: (url, wanted) => openSpdy(url, wanted), endsInput: true }],
  ['WebSocket v5', { open: (url) => openWebSocket(url), endsInput: true }],
  ['WebSocket v4', { open: (url) => openWebSocket(url, 'v4.channel.k8s.io'), endsInput: false }],
  [
    'WebSocket v4 base64',
    { open: (url) => openWebSocket(url, 'v4.base64.channel.k8s.io'), endsInput: false },
  ],
];

describe.each(TRANSPORTS)('exec over %s', (_name, { open, endsInput }) => {
  let container: string;
  beforeEach(async () => {
    container = await pods.start(await pods.run());
  });

  const start = async (script: string, wanted: Wanted) =>
    open(await execUrl(container, ['sh', '-c', script], wanted), wanted);

  it('keeps stdout and stderr apart and tells the code', async () => {
    const client = await start('echo out; echo err >&2; exit 3', OUTPUT);
    expect(await client.end()).toEqual({ stdout: 'out\n', stderr: 'err\n', status: exited(3) });
    expect(await (await start('true', OUTPUT)).end()).toEqual({ stdout: '', stderr: '', status: exited(0) });
  });

  it('tells of a signal as 128 and its number, and of a command that cannot be started', async () => {
    expect((await (await start('kill -9 $$', OUTPUT)).end()).status).toEqual(exited(137));
    const missing = await open(await execUrl(container, ['no-such-command'], OUTPUT), OUTPUT);
    expect(await missing.end()).toMatchObject({
      stdout: '',
      status: {
        status: 'Failure',
        reason: 'InternalError',
        message: expect.stringContaining('no-such-command'),
      },
    });
  });

  it('carries 20 MB of output whole', async () => {
    const client = await start('head -c 20000000 /dev/zero | tr "\\0" x', OUTPUT);
    const hash = createHash('sha256');
    let size = 0;
    client.onOutput = (kind, piece) => {
      if (kind !== 'stdout') return;
      size += piece.length;
      hash.update(piece);
      client.got.stdout.length = 0;
    };
    expect((await client.end()).status).toEqual(exited(0));
    expect(size).toBe(20_000_000);
    expect(hash.digest('hex')).toBe(createHash('sha256').update(Buffer.alloc(20_000_000, 'x')).digest('hex'));
  });

  it('carries input', async () => {
    const client = await start('read a; read b; echo "$b $a"', ALL);
    client.send('first\nsec');
    client.send('ond\n');
    expect(await client.end()).toMatchObject({ stdout: 'second first\n', status: exited(0) });
  });

  it('ends the input of the command when the client has gone', async () => {
    const client = await start('echo here; cat >/tmp/input; echo over >/tmp/over', ALL);
    client.send('some');
    await until('it runs', () => client.text('stdout') === 'here\n');
    await until('input has come', async () => (await pods.ask(container, 'cat /tmp/input')) === 'some');
    client.vanish();
    await until('the input ended', async () => (await pods.exec(container, ['cat', '/tmp/over'])).code === 0);
  });

  it('gives a terminal its size, and SIGWINCH for another', async () => {
    const client = await start(
      `tty; while [ "$(stty size)" != "33 101" ]; do sleep 0.05; done
      trap "stty size; exit 4" WINCH; echo ready; while :; do sleep 0.05; done`,
      TTY,
    );
    client.resize(101, 33);
    await until('the first size', () => client.text('stdout').includes('ready'));
    client.resize(120, 44);
    const { stdout, status } = await client.end();
    expect(stdout).toMatch(/^\/dev\/pts\/\d+\r\n/);
    expect(stdout.endsWith('44 120\r\n')).toBe(true);
    expect(status).toEqual(exited(4));
  });

  it('hangs up the terminal when the client has gone', async () => {
    const script = 'trap "echo hup >/tmp/hup; exit" HUP; echo here; while :; do sleep 0.1; done';
    const client = await start(script, TTY);
    await until('it runs', () => client.text('stdout').includes('here'));
    client.vanish();
    await until('SIGHUP has come', async () => (await pods.exec(container, ['cat', '/tmp/hup'])).code === 0);
  });

  it('ends with the container', async () => {
    const client = await start('echo here; sleep 1000', OUTPUT);
    await until('it runs', () => client.text('stdout') === 'here\n');
    await pods.stop(container);
    expect((await client.end()).status).toEqual(exited(137));
  });

  if (!endsInput) return;

  it('passes on the end of input, after all of it', async () => {
    const client = await start('wc -c', ALL);
    for (let i = 0; i < 50; i++) client.send(Buffer.alloc(100_000, 'y'));
    client.endInput();
    expect(await client.end()).toMatchObject({ stdout: '5000000\n', status: exited(0) });
  });

  it('types the end of input into a terminal', async () => {
    const client = await start('cat; echo over', TTY);
    client.send('line\n');
    await until('cat has read', () => client.text('stdout') === 'line\r\nline\r\n');
    client.endInput();
    expect((await client.end()).stdout).toBe('line\r\nline\r\nover\r\n');
  });
});

describe('exec', () => {
  it('over a slow reader waits, without memory for what is not read', async () => {
    const container = await pods.start(await pods.run());
    const client = await openSpdy(
      await execUrl(container, ['sh', '-c', 'yes | head -c 100000000'], OUTPUT),
      OUTPUT,
    );
    let size = 0;
    client.onOutput = (kind, piece) => {
      size += piece.length;
      client.got[kind].length = 0;
    };
    const peak = () =>
      Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${berthd.pid}/status`, 'utf8'))?.[1]) * 1024;
    await until('output comes', () => size > 1_000_000);
    client.pause();
    const before = peak();
    let last = -1;
    // The command is stuck when the daemon has read nothing more for a while.
    await until('it is held up', async () => {
      const read = readFileSync(`/proc/${berthd.pid}/io`, 'utf8').split('\n')[0] ?? '';
      const stuck = Number(read.split(' ')[1]) - last < 100_000;
      last = Number(read.split(' ')[1]);
      return stuck;
    });
    expect(peak() - before).toBeLessThan(16 << 20);
    client.resume();
    await client.closed;
    expect(size).toBe(100_000_000 + JSON.stringify(exited(0)).length);
  });

  it('goes on without its client, when it has no terminal', async () => {
    const container = await pods.start(await pods.run());
    const script = 'echo here; sleep 0.5; for i in 1 2 3; do echo more; done; echo done >/tmp/done';
    const client = await openSpdy(await execUrl(container, ['sh', '-c', script], OUTPUT), OUTPUT);
    await until('it runs', () => client.text('stdout') === 'here\n');
    client.vanish();
    await until(
      'it has ended well',
      async () => (await pods.exec(container, ['cat', '/tmp/done'])).code === 0,
    );
  });

  it('ends with berthd, and leaves nothing in the container', async () => {
    const container = await pods.start(await pods.run());
    const tty = await openSpdy(await execUrl(container, ['sleep', '11111'], TTY), TTY);
    const cat = await openSpdy(await execUrl(container, ['cat'], ALL), ALL);
    await until('both run', async () =>
      /cat\n(.*\n)*.*11111|11111(.*\n)*.*cat\n/.test(await pods.ask(container, 'ps -o args')),
    );
    await berthd.stop('SIGKILL');
    await Promise.all([tty.closed, cat.closed]);
    await berthd.start();
    await until('both are gone', async () => !/^cat$|11111/m.test(await pods.ask(container, 'ps -o args')));
    // The machine's init has them now.
    await until('no zombie is left', async () => !(await pods.ask(container, 'ps -o stat')).includes('Z'));
    descriptorsBefore = await descriptors();
  });

  it.each([
    ['v3.channel.k8s.io', 'command terminated with non-zero exit code: exit status 5'],
    ['v2.channel.k8s.io', 'command terminated with non-zero exit code: exit status 5'],
    ['channel.k8s.io', 'command terminated with non-zero exit code: exit status 5'],
  ])('over SPDY with %s tells the code in a sentence, and nothing for 0', async (protocol, status) => {
    const container = await pods.start(await pods.run());
    const run = async (script: string) =>
      (await openSpdy(await execUrl(container, ['sh', '-c', script], OUTPUT), OUTPUT, protocol)).end();
    expect(await run('echo a; exit 5')).toEqual({ stdout: 'a\n', stderr: '', status });
    expect(await run('echo a')).toEqual({ stdout: 'a\n', stderr: '', status: '' });
  });

  it('refuses what cannot be run, before there is a URL', async () => {
    const pod = await pods.run();
    const container = await pods.create(pod);
    const exec = (more: object) =>
      refusal(
        berthd.client.runtime('Exec', { container_id: container, cmd: ['true'], stdout: true, ...more }),
      );
    expect((await exec({})).kind).toBe('precondition');
    expect((await exec({ container_id: 'f'.repeat(64) })).kind).toBe('notFound');
    expect((await exec({ cmd: [] })).kind).toBe('invalid');
    expect((await exec({ stdout: false })).kind).toBe('invalid');
    expect((await exec({ tty: true, stderr: true })).kind).toBe('invalid');
  });
});

describe('the streaming server', () => {
  const SPDY = { Upgrade: 'SPDY/3.1', 'X-Stream-Protocol-Version': 'v4.channel.k8s.io' };

  it('serves a token once, and says nothing about others', async () => {
    const container = await pods.start(await pods.run());
    const url = await execUrl(container, ['true'], OUTPUT);
    expect(url).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/exec\/[\w-]{20,}$/);
    await (await openSpdy(url, OUTPUT)).closed;
    const answers = await Promise.all([
      upgrade(url, SPDY),
      upgrade(url.replace(/[^/]+$/, 'x'.repeat(32)), SPDY),
      upgrade(url.replace(/exec.*$/, 'exec/'), SPDY),
      upgrade(url.replace(/exec.*$/, ''), SPDY),
      upgrade((await execUrl(container, ['true'], OUTPUT)).replace('/exec/', '/attach/'), SPDY),
    ]);
    expect(answers.map(({ status, body }) => [status, body])).toEqual(
      answers.map(() => [404, 'not found\n']),
    );
    expect((await fetch(url)).status).toBe(404);
  });

  it('names the protocols that it knows when the client knows none of them', async () => {
    const container = await pods.start(await pods.run());
    const ask = async (headers: Record<string, string>) =>
      upgrade(await execUrl(container, ['true'], OUTPUT), headers);
    const unknown = await ask({ ...SPDY, 'X-Stream-Protocol-Version': 'v9.channel.k8s.io' });
    expect([unknown.status, unknown.headers['x-accepted-stream-protocol-versions']]).toEqual([
      403,
      'v4.channel.k8s.io, v3.channel.k8s.io, v2.channel.k8s.io, channel.k8s.io',
    ]);
    expect((await ask({ Upgrade: 'SPDY/3.1' })).status).toBe(400);
    expect((await ask({ Upgrade: 'h2c' })).status).toBe(400);
    // POST, and no key.
    expect((await ask({ Upgrade: 'websocket' })).status).toBe(405);
  });

  it('takes the best of several protocols that the client prefers', async () => {
    const container = await pods.start(await pods.run());
    const header = 'v9.channel.k8s.io, v4.channel.k8s.io,channel.k8s.io';
    const { status, headers, socket } = await upgrade(await execUrl(container, ['true'], OUTPUT), {
      ...SPDY,
      'X-Stream-Protocol-Version': header,
    });
    expect([status, headers['x-stream-protocol-version']]).toEqual([101, 'v4.channel.k8s.io']);
    socket?.destroy();
  });
});

describe('the streaming server under fire', () => {
  /** Numbers that a seed decides (xorshift32). */
  function random(seed: number): () => number {
    let state = seed * 2654435761 || 1;
    return () => {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      return (state >>> 0) / 2 ** 32;
    };
  }

  /** Valid traffic with some bytes changed, cut anywhere. */
  async function fire(socket: Socket, valid: Buffer, seed: number): Promise<void> {
    const next = random(seed);
    const bytes = Buffer.from(valid);
    for (let i = 0; i < 3; i++) bytes[Math.floor(next() * bytes.length)] = Math.floor(next() * 256);
    socket.on('error', () => {});
    socket.resume();
    const closed = new Promise((resolve) => socket.once('close', resolve));
    for (let at = 0; at < bytes.length; ) {
      const size = 1 + Math.floor(next() * 60);
      socket.write(bytes.subarray(at, at + size));
      at += size;
    }
    // What is still valid waits for more.
    if (next() < 0.5) socket.end();
    else socket.destroy();
    await closed;
  }

  it.each(['SPDY', 'WebSocket'])('%s goes on, and leaves nothing of the sessions', async (transport) => {
    const container = await pods.start(await pods.run());
    const wire = async () => {
      const client = new WireClient(headerDictionary());
      const streams = await Promise.all([
        await client.synStream(1, { streamtype: 'error' }),
        await client.synStream(3, { streamtype: 'stdin' }),
        await client.synStream(5, { streamtype: 'stdout' }),
        await client.synStream(7, { streamtype: 'stderr' }),
      ]);
      return Buffer.concat([...streams, data(3, 'input'), control(6, 0, uint32(1)), data(3, '', true)]);
    };
    const masked = Buffer.from(
      '820a00000000006162636465666768698102000000000078820200000000ff00880200000000 03e8'.replaceAll(' ', ''),
      'hex',
    );
    const handshake =
      transport === 'SPDY'
        ? { Upgrade: 'SPDY/3.1', 'X-Stream-Protocol-Version': 'v4.channel.k8s.io' }
        : {
            Upgrade: 'websocket',
            'Sec-WebSocket-Version': '13',
            'Sec-WebSocket-Key': Buffer.alloc(16).toString('base64'),
            'Sec-WebSocket-Protocol': 'v5.channel.k8s.io',
          };
    for (let seed = 1; seed <= 40; seed++) {
      const answer = await upgrade(await execUrl(container, ['cat'], ALL), handshake, 'GET');
      if (answer.socket === undefined) throw new Error(`not upgraded: ${answer.status}`);
      await fire(answer.socket, transport === 'SPDY' ? await wire() : masked, seed);
    }
    await until('no command is left', async () => !/^cat$/m.test(await pods.ask(container, 'ps -o args')));
    expect((await pods.exec(container, ['echo', 'alive'])).stdout).toBe('alive\n');
  });
});

describe('ExecSync', () => {
  it('gives commands pipes that they can open by name', async () => {
    const container = await pods.start(
      await pods.run(),
      sh('sleep 1000', { linux: { security_context: { run_as_user: { value: '65534' } } } }),
    );
    const said = await pods.exec(container, ['sh', '-c', 'id -u; echo a >/dev/stdout; echo b >/dev/stderr']);
    expect(said).toEqual({ code: 0, stdout: '65534\na\n', stderr: 'b\n' });
  });

  it('says which command cannot be started', async () => {
    const container = await pods.start(await pods.run());
    for (let i = 0; i < 10; i++) {
      const { kind, message } = await refusal(pods.exec(container, ['no-such-command']));
      expect([kind, message]).toEqual(['internal', expect.stringContaining('no-such-command')]);
    }
  });
});
