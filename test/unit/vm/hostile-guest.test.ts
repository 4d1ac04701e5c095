import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type Duplex, duplexPair } from 'node:stream';
import { setImmediate } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { loadShimProtos } from '../../../src/shim/protos.ts';
import { AgentClient } from '../../../src/vm/agent-client/client.ts';
import { runMux } from '../../../src/vm/channel/run-mux.ts';
import { DATA, END, EVENT, encodeFrame, RESPONSE, WINDOW } from '../../../src/vm/protocol/frame.ts';
import { MAX_TEXT } from '../../../src/vm/protocol/messages.ts';
import type { Mux } from '../../../src/vm/protocol/mux.ts';
import { INITIAL_CREDIT } from '../../../src/vm/protocol/stream.ts';
import type { Machine } from '../../../src/vm/shim/machine.ts';
import { Pod } from '../../../src/vm/shim/pod.ts';
import { randomSource } from '../shim/random.ts';
import { HELLO } from './hello.ts';

const STDIO = { terminal: false, stdin: '', stdout: '', stderr: '' };
const SANDBOX = { 'io.kubernetes.cri.container-type': 'sandbox' };
const CONTAINER = {
  'io.kubernetes.cri.container-type': 'container',
  'io.kubernetes.cri.sandbox-id': 'sb',
};
const protos = loadShimProtos();

/** A shim's pod whose agent says what the test writes. */
interface Hostile {
  pod: Pod;
  client: AgentClient;
  guest: Duplex;
  mux: Mux;
  published: [string, object][];
}

let dir: string;
let hostile: Hostile;
let answer: (method: string) => unknown;
beforeEach(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'berth-unit-'));
  answer = (method) => ({ result: method === 'createContainer' || method === 'exec' ? { pid: 7 } : {} });
  hostile = await boot();
});
afterEach(async () => {
  hostile.client.close();
  await rm(dir, { recursive: true });
});

async function boot(): Promise<Hostile> {
  const [host, guest] = duplexPair();
  const mux: Mux = runMux(
    guest,
    {
      request: (id, message) => {
        const { method } = message as { method: string };
        mux.respond(id, method === 'hello' ? { result: HELLO } : answer(method));
      },
    },
    () => {},
  );
  const client = await AgentClient.connect(host, AbortSignal.timeout(10_000));
  const published: Hostile['published'] = [];
  const ended = client.closed.then(() => 'the connection has ended');
  const machine: Machine = {
    ...{ pid: 4711, agent: client, ended, share: async () => ({}), unshare: async () => {} },
    ...{
      bringBack: async () => {},
      takesDisks: false,
      resize: async () => {},
      runOn: async () => {},
      stop: async () => client.close(),
    },
  };
  const pod = new Pod({
    boot: async (_spec, onEvent) => {
      client.onEvent(onEvent);
      return machine;
    },
    // As it is done for the daemon: what cannot be told would end the shim.
    publish: (name, fields) => {
      protos.taskEvents[name].serialize(fields);
      published.push([name, fields]);
    },
    log: () => {},
    isOutOfMemory: async () => false,
  });
  for (const [id, annotations] of [
    ['sb', SANDBOX],
    ['c1', CONTAINER],
  ] as const) {
    await writeFile(path.join(dir, 'config.json'), JSON.stringify({ annotations, root: { path: '/r' } }));
    await pod.create({ id, bundle: dir, rootfs: [], stdio: STDIO });
    await pod.start(id, '');
  }
  published.length = 0;
  return { pod, client, guest, mux, published };
}

/** Until what was written has been read. */
async function settled(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await setImmediate();
}

describe('a hostile guest', () => {
  it('ends nothing that there is not, nor the sandbox', async () => {
    const { mux, published, pod } = hostile;
    for (const id of ['none', 'sb', 'constructor']) {
      mux.tell({ event: 'exit', id, code: 0, time: '1' });
      if (id !== 'sb') mux.tell({ event: 'oom', id });
    }
    mux.tell({ event: 'exit', id: 'c1', execId: 'none', code: 0, time: '1' });
    await settled();
    expect(published).toEqual([]);
    expect(pod.process('c1', '').status).toBe('RUNNING');
    mux.tell({ event: 'exit', id: 'c1', code: 3, time: '1' });
    mux.tell({ event: 'exit', id: 'c1', code: 0, time: '1' });
    await settled();
    expect(published).toMatchObject([['TaskExit', { container_id: 'c1', exit_status: 3 }]]);
  });

  it.each([
    ['a code of no process', { event: 'exit', id: 'c1', code: -1, time: '1' }],
    ['a code past all bounds', { event: 'exit', id: 'c1', code: 2 ** 40, time: '1' }],
    ['an id that is a path', { event: 'exit', id: '../c1', code: 0, time: '1' }],
    ['an unknown event', { event: 'root-shell', id: 'c1' }],
    ['nothing', null],
  ])('loses its machine when it tells %s', async (_, event) => {
    hostile.mux.tell(event);
    expect(await hostile.client.closed).toBeInstanceOf(Error);
    expect((await hostile.pod.process('c1', '').ended).code).toBe(137);
  });

  it.each([
    ['more than was granted', DATA, new Uint8Array(INITIAL_CREDIT + 1)],
    ['credit past all bounds', WINDOW, new Uint8Array([255, 255, 255, 255])],
  ] as const)('loses its machine when it sends %s', async (_, type, payload) => {
    // What comes on a stream that is not open is dropped.
    const { id } = hostile.client.openStream();
    hostile.guest.write(encodeFrame({ type, id, payload }));
    expect(await hostile.client.closed).toBeInstanceOf(Error);
  });

  it('says no more than fits into a message for people', async () => {
    const long = 'x'.repeat(1_000_000);
    answer = () => ({ error: { kind: 'internal', message: long } });
    const refused = await hostile.pod.pids('c1').catch((e: Error) => e.message.length);
    expect(refused).toBeLessThan(MAX_TEXT + 100);
    answer = () => ({ result: { pids: Array(100_000).fill('x') } });
    const misformed = await hostile.pod.pids('c1').catch((e: Error) => e.message.length);
    expect(misformed).toBeLessThan(MAX_TEXT + 100);
    expect(hostile.client.hello).toEqual(HELLO);
  });

  it('is read no further than the shim can pass on', async () => {
    const stream = hostile.client.openStream();
    const piece = new Uint8Array(INITIAL_CREDIT / 8);
    for (let i = 0; i < 8; i++) {
      hostile.guest.write(encodeFrame({ type: DATA, id: stream.id, payload: piece }));
    }
    await settled();
    expect(stream.readableLength).toBe(INITIAL_CREDIT);
    hostile.guest.write(encodeFrame({ type: DATA, id: stream.id, payload: new Uint8Array(1) }));
    expect(await hostile.client.closed).toBeInstanceOf(Error);
  });

  it('cannot do more than lose its machine, whatever it sends', async () => {
    let lost = 0;
    for (let seed = 1; seed <= 150; seed++) {
      const { client, guest, pod, published } = await boot();
      const stream = client.openStream();
      stream.resume();
      const calls = [pod.pids('c1'), pod.stats('c1'), pod.stats('sb')].map((call) => call.catch(() => {}));
      const source = randomSource(seed);
      for (let i = 0; i < 30; i++) guest.write(encodeFrame(anyFrame(source)));
      await settled();
      const exits = published.filter(([name]) => name === 'TaskExit').length;
      expect(exits).toBeLessThanOrEqual(2);
      if (stream.destroyed) lost++;
      client.close();
      await Promise.all(calls);
      expect((await pod.process('c1', '').ended).code).toBeLessThan(256);
    }
    // Both ways of it were tried.
    expect(lost).toBeGreaterThan(10);
    expect(lost).toBeLessThan(150);
  });
});

const WORDS = ['c1', 'sb', 'none', 'exit', 'oom', 'ready', '0', '1', '-5', '9'.repeat(25), '__proto__'];
const FIELDS = [
  'event',
  'id',
  'execId',
  'code',
  'time',
  'level',
  'message',
  'result',
  'error',
  'pids',
  'kind',
];

type Source = ReturnType<typeof randomSource>;

/** Of the right types mostly, so that something gets past the first look. */
function anyFrame(source: Source) {
  const { below, bytes } = source;
  const id = below(6);
  switch (below(8)) {
    case 0:
      return { type: DATA, id, payload: bytes(below(200)) } as const;
    case 1:
      return { type: END, id, payload: below(2) === 0 ? new Uint8Array() : bytes(3) } as const;
    case 2:
      return { type: WINDOW, id, payload: new Uint8Array([0, 0, 0, below(40) === 0 ? 1 : 0]) } as const;
    case 3:
    case 4:
      return { type: RESPONSE, id: below(12), payload: json({ result: anyValue(source, 0) }) } as const;
    case 5:
      return {
        type: EVENT,
        id,
        payload: json(below(9) === 0 ? anyValue(source, 0) : { event: 'ready' }),
      } as const;
    default: {
      const word = WORDS[below(3)];
      const event =
        below(2) === 0
          ? { event: 'oom', id: word }
          : { event: 'exit', id: word, code: below(256), time: '1' };
      return { type: EVENT, id, payload: json(event) } as const;
    }
  }
}

function anyValue(source: Source, depth: number): unknown {
  const { below } = source;
  switch (below(depth > 3 ? 4 : 6)) {
    case 0:
      return below(2 ** 31) - 2 ** 30;
    case 1:
      return null;
    case 4:
      return Array.from({ length: below(5) }, () => anyValue(source, depth + 1));
    case 5: {
      const names = Array.from({ length: below(6) }, () => FIELDS[below(FIELDS.length)]);
      return Object.fromEntries(names.map((name) => [name, anyValue(source, depth + 1)]));
    }
    default:
      return WORDS[below(WORDS.length)];
  }
}

function json(value: unknown): Uint8Array {
  return Buffer.from(JSON.stringify(value));
}
