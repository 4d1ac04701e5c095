import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Berthd } from '../support/berthd.ts';
import { type Pod, Pods, sh, until } from '../support/pods.ts';
import { inTerminal, modesIn } from '../support/terminal.ts';

const BERTH = path.resolve(import.meta.dirname, '../../bin/berth');

let berthd: Berthd;
let pods: Pods;
let pod: Pod;
let idle: string;

beforeAll(async () => {
  berthd = await Berthd.start();
  await berthd.importBusybox();
  pods = new Pods(berthd);
  pod = await pods.run();
  idle = await pods.start(pod);
});
afterAll(async () => {
  expect(await berthd.removeAllPods()).toEqual([]);
  expect(await berthd.close()).toEqual([]);
});

const env = () => ({ ...process.env, BERTH_ENDPOINT: berthd.endpoint, TERM: 'xterm' });
const start = (...args: string[]): ChildProcess => spawn(BERTH, args, { env: env() });

/** Runs berth to its end with this input. */
async function berth(
  args: string[],
  input: string | Buffer = '',
): Promise<{ code: number; stdout: string; stderr: string }> {
  const child = start(...args);
  child.stdin?.on('error', () => {});
  child.stdin?.end(input);
  const ended = once(child, 'exit');
  const [stdout, stderr] = await Promise.all(
    [child.stdout, child.stderr].map((s) => (s === null ? '' : text(s))),
  );
  const [code] = (await ended) as [number];
  return { code, stdout: stdout ?? '', stderr: stderr ?? '' };
}

describe('berth exec', () => {
  it('shows output as it comes, and ends with the command’s status', async () => {
    expect(await berth(['exec', idle, '--', 'sh', '-c', 'echo out; echo err >&2; exit 7'])).toEqual({
      code: 7,
      stdout: 'out\n',
      stderr: 'err\n',
    });
    const child = start('exec', idle, '--', 'sh', '-c', 'echo first; sleep 1000');
    const [chunk] = (await once(child.stdout as NodeJS.EventEmitter, 'data')) as [Buffer];
    expect(String(chunk)).toBe('first\n');
    child.kill('SIGINT');
    expect((await once(child, 'exit'))[0]).toBe(130);
  });

  it('passes input on to its end with -i', async () => {
    const input = Buffer.alloc(5_000_000, 'i');
    expect(await berth(['exec', '-i', idle, 'wc', '-c'], input)).toMatchObject({
      code: 0,
      stdout: '5000000\n',
    });
    expect(await berth(['exec', idle, 'cat'], 'not passed on')).toMatchObject({ code: 0, stdout: '' });
  });

  it('says what cannot be run', async () => {
    const { code, stderr } = await berth(['exec', idle, 'no-such-command']);
    expect([code, stderr]).toEqual([1, expect.stringMatching(/^berth: .*no-such-command/)]);
  });

  it('gives the command this terminal’s size with -t, all keys, and gives the terminal back', async () => {
    // The size may come a moment after the command has started; stty fails until then.
    const command = `${BERTH} exec -it ${idle} -- sh -c 'until stty size 2>/dev/null; do :; done; echo ready; read -n 1 k; echo "key $k"; exit 3'`;
    let typed = false;
    const shown = await inTerminal(`stty -g; ${command}; echo "status $?"; stty -g`, env(), (typist) => {
      if (typed || !typist.shown.includes('ready')) return;
      typed = true;
      typist.write('\x03');
    });
    // Ctrl-C reached the far terminal, whose driver made SIGINT of it.
    expect(shown).toContain('30 90\r\nready\r\n');
    expect(shown).toContain('status 130');
    const modes = modesIn(shown);
    expect(modes.length).toBe(2);
    expect(modes[0]).toBe(modes[1]);
  });

  it.each(['TERM', 'INT', 'HUP'])('gives the terminal back when it is ended by SIG%s', async (signal) => {
    const command = `timeout --foreground -s ${signal} 2 ${BERTH} exec -it ${idle} -- sleep 4242`;
    const shown = await inTerminal(`stty -g; ${command}; stty -g`, env());
    const modes = modesIn(shown);
    expect(modes.length).toBe(2);
    expect(modes[0]).toBe(modes[1]);
    await until(
      'the command has gone',
      async () => !(await pods.ask(idle, 'ps -o args')).includes('sleep 4242'),
    );
  });
});

describe('berth attach', () => {
  it('joins the container’s input and output, and ends with it', async () => {
    const container = await pods.start(
      pod,
      sh('read l; echo "got $l"; exit 4', { stdin: true, stdin_once: true }),
    );
    expect(await berth(['attach', '-i', container], 'hello\n')).toEqual({
      code: 0,
      stdout: 'got hello\n',
      stderr: '',
    });
  });
});

describe('berth port-forward', () => {
  it('forwards connections to each port, and says where it listens', async () => {
    const script = 'mkdir /w; echo page >/w/index.html; exec httpd -f -p 8080 -h /w';
    const container = await pods.start(pod, sh(script));
    await until('it listens', async () =>
      (await pods.ask(container, 'cat /proc/net/tcp6')).includes(':1F90'),
    );
    const child = start('port-forward', pod.id, ':8080', ':9');
    const [line] = (await once(child.stdout as NodeJS.EventEmitter, 'data')) as [Buffer];
    const port = Number(/^127\.0\.0\.1:(\d+) -> 8080\n/.exec(String(line))?.[1]);
    const page = async () => (await fetch(`http://127.0.0.1:${port}/index.html`)).text();
    expect(await Promise.all(Array.from({ length: 20 }, page))).toEqual(
      Array.from({ length: 20 }, () => 'page\n'),
    );
    child.kill('SIGINT');
    expect((await once(child, 'exit'))[0]).toBe(130);
    await expect(once(connect(port, '127.0.0.1'), 'connect')).rejects.toThrow('ECONNREFUSED');
  });

  it('refuses ports that are none, and those that are taken', async () => {
    for (const word of ['0', '70000', 'x', '80:', '1:2:3'])
      expect((await berth(['port-forward', pod.id, word])).code, word).toBe(2);
    const taken = createServer().listen(0, '127.0.0.1');
    await once(taken, 'listening');
    const { port } = taken.address() as { port: number };
    const { code, stderr } = await berth(['port-forward', pod.id, `${port}:80`]);
    taken.close();
    expect([code, stderr]).toEqual([1, expect.stringContaining(`cannot listen on 127.0.0.1 port ${port}`)]);
  });
});
