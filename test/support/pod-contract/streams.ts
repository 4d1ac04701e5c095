import { describe, expect, it } from 'vitest';
import { refusal, sh, until } from '../pods.ts';
import { forwardOverSpdy, forwardOverTunnel } from '../port-forward.ts';
import { exited, openSpdy, openWebSocket, type RemoteClient, type Wanted } from '../remote-command.ts';
import type { Suite } from './suite.ts';

const OUTPUT: Wanted = { stdout: true, stderr: true };
const ALL: Wanted = { stdin: true, ...OUTPUT };
const TTY: Wanted = { stdin: true, stdout: true, tty: true };
type Transport = [string, (url: string, wanted: Wanted) => Promise<RemoteClient>];
const SPDY: Transport = ['SPDY', (url, wanted) => openSpdy(url, wanted)];
const WEBSOCKET: Transport = ['WebSocket', (url) => openWebSocket(url)];
/** A program that says what it reads, and "more" on stderr. */
const ECHO = 'while read l; do echo "got $l"; echo "more $l" >&2; done; echo end of input';

/** Exec, Attach and PortForward over the streaming server. */
export function describeStreams(suite: Suite): void {
  const exec = async (script: string, wanted: Wanted, [, open] = SPDY) => {
    const request = { container_id: suite.one, cmd: ['sh', '-c', script], ...wanted };
    return open((await suite.berthd.client.runtime('Exec', request)).url, wanted);
  };
  const attach = async (container_id: string, wanted: Wanted, [, open] = SPDY) =>
    open((await suite.berthd.client.runtime('Attach', { container_id, ...wanted })).url, wanted);

  describe.each([SPDY, WEBSOCKET])('over %s', (...transport) => {
    it('a command has input, output and a code', async () => {
      const client = await exec('wc -c; echo err >&2; exit 7', ALL, transport);
      for (let i = 0; i < 10; i++) client.send(Buffer.alloc(100_000, 'y'));
      client.endInput();
      expect(await client.end()).toEqual({ stdout: '1000000\n', stderr: 'err\n', status: exited(7) });
    });

    it('a command has a terminal of the client’s size, and ends with a signal', async () => {
      const client = await exec(
        `tty; while [ "$(stty size)" != "33 101" ]; do sleep 0.05; done
        trap "stty size; kill -9 \\$\\$" WINCH; echo ready; while :; do sleep 0.05; done`,
        TTY,
        transport,
      );
      client.resize(101, 33);
      await until('the first size', () => client.text('stdout').includes('ready'));
      client.resize(120, 44);
      const { stdout, status } = await client.end();
      expect(stdout).toMatch(/^\/dev\/pts\/\d+\r\n(.*\r\n)*44 120\r\n$/);
      expect(status).toEqual(exited(137));
    });

    it('a client joins a container’s streams, and ends its input', async () => {
      const { pods, pod } = suite;
      const id = await pods.start(pod, sh(ECHO, { stdin: true, stdin_once: true }));
      const [client, onlooker] = [await attach(id, ALL, transport), await attach(id, OUTPUT, transport)];
      client.send('one\n');
      await until('an answer', () => client.text('stderr') === 'more one\n');
      client.send('two\n');
      client.endInput();
      const all = {
        stdout: 'got one\ngot two\nend of input\n',
        stderr: 'more one\nmore two\n',
        status: exited(0),
      };
      expect(await client.end()).toEqual(all);
      expect(await onlooker.end()).toEqual(all);
      expect((await pods.ended(id)).exit_code).toBe(0);
    });
  });

  describe('Exec', () => {
    it('takes input for a command that does not wait for it', async () => {
      for (const wanted of [ALL, TTY, ALL]) {
        const client = await exec('exit 3', wanted);
        expect((await client.end()).status).toEqual(exited(3));
      }
    });

    it('tells of a command that cannot be started', async () => {
      const request = { container_id: suite.one, cmd: ['no-such-command'], ...OUTPUT };
      const client = await openSpdy((await suite.berthd.client.runtime('Exec', request)).url, OUTPUT);
      expect(await client.end()).toMatchObject({
        stdout: '',
        status: { status: 'Failure', message: expect.stringContaining('no-such-command') },
      });
    });

    it('ends the input, or hangs up the terminal, when the client has gone', async () => {
      const { pods, one } = suite;
      const clients = [
        await exec('trap "echo hup >/tmp/hup; exit" HUP; echo here; while :; do sleep 0.1; done', TTY),
        await exec('echo here; cat; echo over >/tmp/over', ALL),
      ];
      for (const client of clients) {
        await until('it runs', () => client.text('stdout').includes('here'));
        client.vanish();
      }
      await until(
        'both know',
        async () => (await pods.exec(one, ['cat', '/tmp/hup', '/tmp/over'])).code === 0,
      );
    });
  });

  describe('Attach', () => {
    it('gives a container’s terminal its size, and leaves it open for the next client', async () => {
      const { pods, pod } = suite;
      const id = await pods.start(pod, sh('while :; do read l; stty size; done', { stdin: true, tty: true }));
      for (const [width, height] of [
        [101, 33],
        [120, 44],
      ] as const) {
        const client = await attach(id, TTY);
        client.resize(width, height);
        await until('the size', () => {
          client.send('\n');
          return client.text('stdout').includes(`${height} ${width}\r\n`);
        });
        client.vanish();
      }
      expect((await pods.status(id)).state).toBe('CONTAINER_RUNNING');
      await pods.removeContainer(id);
      expect((await refusal(attach(id, OUTPUT))).kind).toBe('notFound');
    });
  });

  describe('PortForward', () => {
    it('reaches the loopback of the pod, each connection by itself', async () => {
      const { pods, pod, berthd } = suite;
      // A web server on the loopback alone, and one that sends back what it gets.
      const id = await pods.start(
        pod,
        sh(
          'head -c 300000 /dev/zero >/tmp/file; nc -ll -p 7001 -e cat & exec httpd -f -p 127.0.0.1:7000 -h /tmp',
        ),
      );
      await until(
        'both listen',
        async () => (await pods.ask(id, 'netstat -tln')).match(/:700[01] /g)?.length === 2,
      );
      for (const connect of [forwardOverSpdy, forwardOverTunnel]) {
        const request = { pod_sandbox_id: pod.id, port: [7000, 7001] };
        const client = await connect((await berthd.client.runtime('PortForward', request)).url);
        const body = 'z'.repeat(300_000);
        const [file, back, bad] = await Promise.all([7000, 7001, 7999].map((port) => client.open(port)));
        if (file === undefined || back === undefined || bad === undefined) throw new Error('not opened');
        file.send('GET /file HTTP/1.0\r\n\r\n');
        back.send(body);
        for (const connection of [file, back]) connection.end();
        await until('all ends', () => [file, back, bad].every(({ done }) => done));
        expect(file.text.endsWith(`\r\n\r\n${'\0'.repeat(300_000)}`)).toBe(true);
        expect(back.text === body).toBe(true);
        expect([file.error, back.error]).toEqual(['', '']);
        expect(bad.error).toMatch(/^cannot connect to port 7999 of the pod: .*nothing listens/);
        client.destroy();
      }
      await pods.removeContainer(id);
    });
  });
}
