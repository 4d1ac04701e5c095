import { readFileSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { Berthd } from '../support/berthd.ts';
import { type LogLine, Pods, refusal, sh, until } from '../support/pods.ts';
import {
  exited,
  openSpdy,
  openWebSocket,
  type RemoteClient,
  type Wanted,
} from '../support/remote-command.ts';

let berthd: Berthd;
let pods: Pods;

beforeAll(async () => {
  berthd = await Berthd.start();
  await berthd.importBusybox();
  pods = new Pods(berthd);
});
afterEach(async () => expect(await berthd.removeAllPods()).toEqual([]));
afterAll(async () => expect(await berthd.close()).toEqual([]));

const OUTPUT: Wanted = { stdout: true, stderr: true };
const ALL: Wanted = { stdin: true, ...OUTPUT };

async function attachUrl(container_id: string, wanted: Wanted): Promise<string> {
  return (await berthd.client.runtime('Attach', { container_id, ...wanted })).url;
}

const attach = async (container: string, wanted: Wanted): Promise<RemoteClient> =>
  openSpdy(await attachUrl(container, wanted), wanted);

const textOf = (lines: LogLine[], stream: string) =>
  lines
    .filter((line) => line.stream === stream)
    .map(({ text, tag }) => (tag === 'F' ? `${text}\n` : text))
    .join('');

/** A program that says what it reads, and "more" on stderr. */
const ECHO = 'while read l; do echo "got $l"; echo "more $l" >&2; done; echo end of input';

describe.each([
  ['SPDY', (url: string, wanted: Wanted) => openSpdy(url, wanted)],
  ['WebSocket v5', (url: string) => openWebSocket(url)],
])('attach over %s', (_name, open) => {
  it('joins a client to stdin, stdout and stderr', async () => {
    const container = await pods.start(await pods.run(), sh(ECHO, { stdin: true, stdin_once: true }));
    const client = await open(await attachUrl(container, ALL), ALL);
    client.send('one\n');
    await until('an answer', () => client.text('stderr') === 'more one\n');
    client.send('two\n');
    client.endInput();
    expect(await client.end()).toEqual({
      stdout: 'got one\ngot two\nend of input\n',
      stderr: 'more one\nmore two\n',
      status: exited(0),
    });
    expect((await pods.ended(container)).exit_code).toBe(0);
  });

  it('gives a terminal its size', async () => {
    const script = 'while :; do read l; stty size; done';
    const container = await pods.start(await pods.run(), sh(script, { stdin: true, tty: true }));
    const wanted = { stdin: true, stdout: true, tty: true };
    const client = await open(await attachUrl(container, wanted), wanted);
    client.resize(101, 33);
    await until('the size', () => {
      client.send('\n');
      return client.text('stdout').includes('33 101\r\n');
    });
    client.vanish();
  });
});

describe('attach', () => {
  it('shows several clients the same, as the log has it', async () => {
    const script = 'read go; for i in $(seq 20000); do echo "line $i"; echo "error $i" >&2; done';
    const container = await pods.start(await pods.run(), sh(script, { stdin: true }));
    const clients = await Promise.all([
      attach(container, ALL),
      attach(container, OUTPUT),
      openWebSocket(await attachUrl(container, OUTPUT)),
      attach(container, { stderr: true }),
    ]);
    clients[0]?.send('go\n');
    const ends = await Promise.all(clients.map((client) => client.end()));
    const log = await pods.log((await pods.ended(container)).log_path);
    const [stdout, stderr] = [textOf(log, 'stdout'), textOf(log, 'stderr')];
    expect(stdout.split('\n').length).toBe(20_001);
    for (const end of ends.slice(0, 3)) expect(end).toEqual({ stdout, stderr, status: exited(0) });
    expect(ends[3]).toEqual({ stdout: '', stderr, status: exited(0) });
  });

  it('leaves the input open for the next client, unless it is for one only', async () => {
    const container = await pods.start(await pods.run(), sh(ECHO, { stdin: true }));
    const first = await attach(container, ALL);
    first.send('a\n');
    first.endInput();
    await until('an answer', () => first.text('stdout') === 'got a\n');
    first.vanish();
    const second = await attach(container, ALL);
    second.send('b\n');
    await until('an answer', () => second.text('stdout') === 'got b\n');
    second.vanish();
    expect((await pods.status(container)).state).toBe('CONTAINER_RUNNING');
  });

  it('ends an input for one only when its client vanishes, but not when an onlooker does', async () => {
    const container = await pods.start(await pods.run(), sh(ECHO, { stdin: true, stdin_once: true }));
    const onlooker = await attach(container, OUTPUT);
    const client = await attach(container, ALL);
    client.send('a\n');
    await until(
      'both see it',
      () => client.text('stdout') === 'got a\n' && onlooker.text('stdout') === 'got a\n',
    );
    onlooker.vanish();
    await onlooker.closed;
    client.send('b\n');
    await until('it goes on', () => client.text('stdout') === 'got a\ngot b\n');
    client.vanish();
    const { log_path } = await pods.ended(container);
    expect(textOf(await pods.log(log_path), 'stdout')).toBe('got a\ngot b\nend of input\n');
  });

  it('does not hold the container or others up for a client that does not read, and cuts it off', async () => {
    const script = 'read go; yes 0123456789 | head -c 60000000; echo; echo done';
    const container = await pods.start(await pods.run(), sh(script, { stdin: true }));
    const [slow, quick] = [await attach(container, OUTPUT), await attach(container, ALL)];
    let [tail, size] = ['', 0];
    quick.onOutput = (kind, piece) => {
      size += kind === 'stdout' ? piece.length : 0;
      tail = (tail + piece.toString('latin1')).slice(-20);
      quick.got[kind].length = kind === 'error' ? 1 : 0;
    };
    const peak = () =>
      Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${berthd.pid}/status`, 'utf8'))?.[1]) * 1024;
    const before = peak();
    slow.pause();
    quick.send('go\n');
    await quick.closed;
    expect(size).toBe(60_000_000 + '\ndone\n'.length);
    expect(peak() - before).toBeLessThan(40 << 20);
    slow.resume();
    const { stdout, status } = await slow.end();
    expect(stdout.length).toBeLessThan(20 << 20);
    expect(status).toMatchObject({ message: 'the client fell 8 MiB of output behind and was cut off' });
  });

  it('refuses a container that has ended or is not there', async () => {
    const pod = await pods.run();
    const { id } = await pods.runToEnd(pod, sh('true'));
    const ask = (container_id: string) =>
      refusal(berthd.client.runtime('Attach', { container_id, stdout: true }));
    expect((await ask(id)).kind).toBe('precondition');
    expect((await ask('f'.repeat(64))).kind).toBe('notFound');
  });
});
