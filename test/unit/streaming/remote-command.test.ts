import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { PassThrough } from 'node:stream';
import { text } from 'node:stream/consumers';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import WebSocket, { WebSocketServer } from 'ws';
import { listOf } from '../../../src/streaming/negotiate.ts';
import { ResizeReader } from '../../../src/streaming/remote-command/resize.ts';
import type { TerminalSize } from '../../../src/streaming/remote-command/session.ts';
import { statusJson, statusText } from '../../../src/streaming/remote-command/status.ts';
import { type ChannelOptions, Channels } from '../../../src/streaming/websocket/channels.ts';
import { eventually } from '../../support/eventually.ts';

describe('the outcome of a command', () => {
  it('is a Status from v4 on', () => {
    expect(JSON.parse(statusJson({ exitCode: 0 }))).toEqual({ metadata: {}, status: 'Success' });
    expect(JSON.parse(statusJson({ exitCode: 137 }))).toEqual({
      metadata: {},
      status: 'Failure',
      reason: 'NonZeroExitCode',
      message: 'command terminated with non-zero exit code: exit status 137',
      details: { causes: [{ reason: 'ExitCode', message: '137' }] },
    });
    expect(JSON.parse(statusJson({ error: 'no "x"' }))).toMatchObject({
      status: 'Failure',
      reason: 'InternalError',
      message: 'no "x"',
      code: 500,
    });
  });

  it('is a sentence before v4, and nothing for success', () => {
    expect(statusText({ exitCode: 0 })).toBe('');
    expect(statusText({ exitCode: 1 })).toMatch(/exit status 1$/);
    expect(statusText({ error: 'no such command' })).toBe('no such command');
  });
});

describe('terminal sizes', () => {
  const read = (...chunks: string[]) => {
    const sizes: TerminalSize[] = [];
    const reader = new ResizeReader();
    reader.listen((size) => sizes.push(size));
    for (const chunk of chunks) reader.push(chunk);
    return sizes;
  };

  it('are read wherever they are cut', () => {
    const whole = '{"Width":80,"Height":24}\n{"Height":1,"Width":2} {"Width":65535,"Height":0}';
    const expected = [
      { width: 80, height: 24 },
      { width: 2, height: 1 },
      { width: 65_535, height: 0 },
    ];
    expect(read(whole)).toEqual(expected);
    expect(read(...whole)).toEqual(expected);
  });

  it('that are none are skipped', () => {
    for (const nonsense of [
      '{}',
      '{"Width":-1,"Height":1}',
      '{"Width":1.5,"Height":1}',
      '{"Width":65536,"Height":1}',
    ])
      expect(read(`${nonsense}{"Width":3,"Height":4}`), nonsense).toEqual([{ width: 3, height: 4 }]);
    expect(read('x'.repeat(5000), '{"Width":3,"Height":4}')).toEqual([{ width: 3, height: 4 }]);
    expect(read('{"Width":"8","Height":9}', '[1]', 'null}', '{"a":{}}')).toEqual([]);
  });

  it('that came before anybody listened are told, the last one', () => {
    const reader = new ResizeReader();
    const stream = new PassThrough();
    reader.read(stream);
    reader.push('{"Width":1,"Height":1}{"Width":2,"Height":2}');
    const listener = vi.fn();
    reader.listen(listener);
    expect(listener.mock.calls).toEqual([[{ width: 2, height: 2 }]]);
  });
});

describe('listOf', () => {
  it('takes items of several headers and of one', () => {
    expect(listOf(undefined)).toEqual([]);
    expect(listOf(' a, b ,,c')).toEqual(['a', 'b', 'c']);
    expect(listOf(['a,b', 'c'])).toEqual(['a', 'b', 'c']);
  });
});

describe('channels over WebSocket', () => {
  let http: Server;
  let client: WebSocket;

  beforeEach(async () => {
    http = createServer().listen(0, '127.0.0.1');
    await once(http, 'listening');
  });
  afterEach(() => {
    client.terminate();
    http.close();
  });

  async function open(options: Partial<ChannelOptions> = {}): Promise<Channels> {
    const server = new WebSocketServer({ server: http });
    const connected = once(server, 'connection');
    client = new WebSocket(`ws://127.0.0.1:${(http.address() as AddressInfo).port}`);
    const [socket] = (await connected) as [WebSocket];
    return new Channels(socket, { base64: false, closable: false, ...options });
  }

  const send = async (...messages: (string | Buffer)[]) => {
    if (client.readyState !== client.OPEN) await once(client, 'open');
    for (const message of messages) client.send(message);
  };

  it('carry bytes by the first byte’s number', async () => {
    const channels = await open();
    const [stdin, resize] = [channels.input(0), channels.input(4)];
    const got: Buffer[] = [];
    client.on('message', (message: Buffer) => got.push(message));
    await send('\0in', Buffer.from([4, 0x7b]), Buffer.from([9, 1]), Buffer.alloc(0), '\0put');
    await eventually(() => expect(stdin.readableLength).toBe(5));
    expect([String(stdin.read()), String(resize.read())]).toEqual(['input', '{']);
    channels.output(1).write('out');
    channels.send(2, Buffer.alloc(0));
    await eventually(() => expect(got.map(String)).toEqual(['\x01out', '\x02']));
  });

  it('carry base64 by a digit', async () => {
    const channels = await open({ base64: true });
    const stdin = channels.input(0);
    const got: string[] = [];
    client.on('message', (message: Buffer, binary: boolean) => got.push(`${binary} ${message}`));
    await send(`0${Buffer.from([0xff, 0]).toString('base64')}`);
    expect((await once(stdin, 'data'))[0]).toEqual(Buffer.from([0xff, 0]));
    channels.output(3).write('é');
    await eventually(() => expect(got).toEqual([`false 3${Buffer.from('é').toString('base64')}`]));
  });

  it('end with a close message in v5', async () => {
    const v5 = await open({ closable: true });
    const stdin = text(v5.input(0));
    await send('\0last', Buffer.from([255, 0]), '\0too late', Buffer.from([255, 99]));
    expect(await stdin).toBe('last');
  });

  it('do not end with one in v4', async () => {
    const v4 = await open();
    const other = v4.input(0);
    await send(Buffer.from([255, 0]), '\0more');
    expect(String((await once(other, 'data'))[0])).toBe('more');
    expect(other.readableEnded).toBe(false);
  });

  it('refuse a close message that is none', async () => {
    await open({ closable: true });
    await send(Buffer.from([255, 0, 1]));
    expect((await once(client, 'close'))[0]).toBe(1002);
  });

  it('close without an end when the client has gone', async () => {
    const channels = await open();
    const [stdin, stdout] = [channels.input(0), channels.output(1)];
    stdin.resume();
    if (client.readyState !== client.OPEN) await once(client, 'open');
    client.terminate();
    await once(stdin, 'close');
    expect([stdin.readableEnded, stdout.destroyed, channels.closed.aborted]).toEqual([false, true, true]);
    await new Promise<void>((resolve) => channels.send(1, Buffer.from('x'), () => resolve()));
  });

  it('stop reading while one is full', async () => {
    const channels = await open();
    const stdin = channels.input(0);
    const piece = Buffer.concat([Buffer.from([0]), Buffer.alloc(60_000, 'x')]);
    await send(...Array.from({ length: 100 }, () => piece));
    await eventually(() => expect(stdin.readableLength).toBeGreaterThan(256 * 1024));
    const kept = stdin.readableLength;
    expect(kept).toBeLessThan(512 * 1024);
    let size = 0;
    stdin.on('data', (chunk: Buffer) => (size += chunk.length));
    await eventually(() => expect(size).toBe(6_000_000));
  });
});
