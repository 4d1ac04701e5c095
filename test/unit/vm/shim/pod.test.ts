import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { PassThrough } from 'node:stream';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { BerthError } from '../../../../src/errors.ts';
import type { AgentEvent } from '../../../../src/vm/protocol/messages.ts';
import type { GuestAgent, GuestStream, Machine } from '../../../../src/vm/shim/machine.ts';
import { Pod } from '../../../../src/vm/shim/pod.ts';
import type { StdioPaths } from '../../../../src/vm/shim/stdio.ts';

const NOWHERE: StdioPaths = { terminal: false, stdin: '', stdout: '', stderr: '' };
const SANDBOX = { 'io.kubernetes.cri.container-type': 'sandbox' };
const CONTAINER = {
  'io.kubernetes.cri.container-type': 'container',
  'io.kubernetes.cri.sandbox-id': 'sb',
};

/** A machine whose agent does as the test says and remembers what it was told. */
class FakeMachine implements Machine {
  readonly pid = 4711;
  takesDisks = false;
  readonly calls: string[] = [];
  readonly streams: PassThrough[] = [];
  readonly #ended = Promise.withResolvers<string>();
  answer: (method: string, params: unknown) => unknown = () => ({});
  tell: (event: AgentEvent) => void = () => {};
  readonly agent: GuestAgent = {
    call: (async (method: string, params: unknown) => {
      this.calls.push(method);
      return this.answer(method, params);
    }) as GuestAgent['call'],
    openStream: () => {
      const stream = Object.assign(new PassThrough(), { id: this.streams.length + 1 });
      this.streams.push(stream);
      return stream as unknown as GuestStream;
    },
  };

  get ended(): Promise<string> {
    return this.#ended.promise;
  }
  async share(id: string): Promise<Record<string, unknown>> {
    this.calls.push(`share ${id}`);
    return { shared: id };
  }
  async bringBack(id: string): Promise<void> {
    this.calls.push(`bringBack ${id}`);
  }
  async unshare(id: string): Promise<void> {
    this.calls.push(`unshare ${id}`);
  }
  async resize(limits: object): Promise<void> {
    this.calls.push(`resize ${Object.keys(limits)}`);
  }
  async runOn({ cpus }: { cpus: string }): Promise<void> {
    if (cpus !== '') this.calls.push(`run on ${cpus}`);
  }
  async stop(): Promise<void> {
    this.calls.push('stop');
    this.die('stopped');
  }
  die(reason: string): void {
    for (const stream of this.streams) stream.end();
    this.#ended.resolve(reason);
  }
}

let dir: string;
let machine: FakeMachine;
let pod: Pod;
let events: [string, Record<string, unknown>][];
let isOutOfMemory: boolean;
beforeEach(async () => {
  isOutOfMemory = false;
  dir = await mkdtemp(path.join(tmpdir(), 'berth-unit-'));
  machine = new FakeMachine();
  events = [];
  pod = new Pod({
    boot: async (_spec, onEvent) => {
      machine.tell = onEvent;
      return machine;
    },
    publish: (name, fields) => void events.push([name, fields as Record<string, unknown>]),
    log: () => {},
    isOutOfMemory: async () => isOutOfMemory,
  });
});
afterEach(async () => {
  await pod.close();
  await rm(dir, { recursive: true, force: true });
});

async function create(id: string, annotations: object, linux: object = {}): Promise<number> {
  const spec = { annotations, root: { path: '/r' }, linux };
  await writeFile(path.join(dir, 'config.json'), JSON.stringify(spec));
  return pod.create({ id, bundle: dir, rootfs: [], stdio: NOWHERE });
}
const exit = (id: string, code: number, execId?: string): void => {
  for (const stream of machine.streams) stream.end();
  machine.tell({ event: 'exit', id, code, time: '1', ...(execId === undefined ? {} : { execId }) });
};
const kinds = () => events.map(([name]) => name);
const statusOf = (id: string, execId = '') => pod.process(id, execId).status;

describe('a sandbox and its containers', () => {
  it('are made, run, end and are forgotten, and the daemon is told each step', async () => {
    expect(await create('sb', SANDBOX)).toBe(4711);
    expect(await pod.start('sb', '')).toBe(4711);
    await create('c1', CONTAINER);
    expect(statusOf('c1')).toBe('CREATED');
    await pod.start('c1', '');
    expect(statusOf('c1')).toBe('RUNNING');
    const ended = pod.process('c1', '').ended;
    exit('c1', 3);
    expect((await ended).code).toBe(3);
    expect(statusOf('c1')).toBe('STOPPED');
    expect((await pod.delete('c1', '')).end.code).toBe(3);
    expect(() => pod.process('c1', '')).toThrow(/not found/);
    expect(machine.calls).toEqual([
      'share c1',
      'createContainer',
      'start',
      'bringBack c1',
      'remove',
      'unshare c1',
    ]);
    expect(kinds()).toEqual([
      ...['TaskCreate', 'TaskStart', 'TaskCreate', 'TaskStart'],
      ...['TaskExit', 'TaskDelete'],
    ]);
    expect(events[4]?.[1]).toMatchObject({ container_id: 'c1', id: 'c1', pid: 4711, exit_status: 3 });
  });

  it('all end when the machine does, killed', async () => {
    await create('sb', SANDBOX);
    await pod.start('sb', '');
    await create('c1', CONTAINER);
    await pod.start('c1', '');
    pod.exec('c1', 'e', { args: ['x'] }, NOWHERE);
    machine.answer = () => ({ pid: 7 });
    expect(await pod.start('c1', 'e')).toBe(7);
    machine.die('QEMU was killed');
    for (const [id, execId] of [
      ['c1', 'e'],
      ['c1', ''],
      ['sb', ''],
    ] as const) {
      expect((await pod.process(id, execId).ended).code).toBe(137);
    }
    expect(kinds().filter((kind) => kind === 'TaskExit')).toHaveLength(3);
  });

  it("are told as out of memory when that is what this host's kernel killed the machine for", async () => {
    await create('sb', SANDBOX);
    for (const id of ['c1', 'c2']) {
      await create(id, CONTAINER);
      await pod.start(id, '');
    }
    exit('c1', 0);
    isOutOfMemory = true;
    machine.die('QEMU was killed');
    expect((await pod.process('c2', '').ended).code).toBe(137);
    expect(events.filter(([name]) => name === 'TaskOOM')).toEqual([['TaskOOM', { container_id: 'c2' }]]);
    // A daemon that hears of the end first takes it for another one.
    expect(kinds().indexOf('TaskOOM')).toBeLessThan(kinds().lastIndexOf('TaskExit'));
  });

  it('a sandbox that gets other limits becomes another size', async () => {
    await create('sb', SANDBOX);
    await pod.update('sb', { memory: { limit: 1 } });
    expect(machine.calls).toEqual(['resize memory']);
  });

  it('run on the processors of all of its containers, the machine with them', async () => {
    await create('sb', SANDBOX);
    await create('c1', CONTAINER, { resources: { cpu: { cpus: '0' } } });
    await create('c2', CONTAINER);
    await pod.update('c2', { cpu: { cpus: '2' } });
    machine.answer = () => {
      throw new BerthError('internal', 'no');
    };
    await expect(create('c3', CONTAINER, { resources: { cpu: { cpus: '3' } } })).rejects.toThrow();
    const wanted = ['0', '0', '0,2', '0,2-3', '0,2'].map((cpus) => `run on ${cpus}`);
    expect(machine.calls.filter((call) => call.startsWith('run on'))).toEqual(wanted);
  });

  it('a sandbox that is killed takes its machine down', async () => {
    await create('sb', SANDBOX);
    await pod.start('sb', '');
    await pod.kill('sb', '', 9, true);
    expect((await pod.process('sb', '').ended).code).toBe(137);
    await expect(pod.kill('sb', '', 9, true)).rejects.toMatchObject({ kind: 'notFound' });
    await pod.delete('sb', '');
    expect(pod.isEmpty).toBe(true);
  });
});

describe('a container without a pod', () => {
  it('has a machine of its own, which ends when it is deleted', async () => {
    await create('one', {});
    await pod.start('one', '');
    exit('one', 0);
    await pod.process('one', '').ended;
    await pod.delete('one', '');
    expect(machine.calls).toEqual([
      'share one',
      'createContainer',
      'start',
      'bringBack one',
      'stop',
      'unshare one',
    ]);
    expect(pod.isEmpty).toBe(true);
  });
});

describe('commands', () => {
  beforeEach(async () => {
    await create('sb', SANDBOX);
    await create('c1', CONTAINER);
    await pod.start('c1', '');
    machine.answer = (method) => (method === 'exec' ? { pid: 9 } : method === 'pids' ? { pids: [1, 9] } : {});
  });

  it('run beside the container, with their own end', async () => {
    pod.exec('c1', 'e', { args: ['x'], apparmorProfile: 'p' }, NOWHERE);
    let told: unknown;
    machine.answer = (method, params) => {
      if (method === 'exec') told = params;
      return method === 'pids' ? { pids: [1, 9] } : { pid: 9 };
    };
    await pod.start('c1', 'e');
    expect(told).toMatchObject({ id: 'c1', execId: 'e', streams: { stdout: 3, stderr: 4 }, terminal: false });
    expect(JSON.parse((told as { process: string }).process)).toEqual({ args: ['x'], terminal: false });
    expect(await pod.pids('c1')).toEqual([{ pid: 1 }, { pid: 9, execId: 'e' }]);
    exit('c1', 4, 'e');
    expect((await pod.process('c1', 'e').ended).code).toBe(4);
    expect(statusOf('c1')).toBe('RUNNING');
    await pod.delete('c1', 'e');
    expect(() => pod.process('c1', 'e')).toThrow(/not found/);
  });

  it('are told to have started before they are told to have ended', async () => {
    pod.exec('c1', 'e', { args: ['x'] }, NOWHERE);
    const gate = Promise.withResolvers<void>();
    machine.answer = async () => {
      await gate.promise;
      // As when both come in one piece.
      exit('c1', 0, 'e');
      return { pid: 9 };
    };
    const started = pod.start('c1', 'e');
    gate.resolve();
    await started;
    await pod.process('c1', 'e').ended;
    const told = kinds();
    expect(told.indexOf('TaskExecStarted')).toBeLessThan(told.indexOf('TaskExit'));
    expect(events.find(([kind]) => kind === 'TaskExit')?.[1]).toMatchObject({ id: 'e', pid: 9 });
  });

  it('that cannot be started have ended, and can be deleted', async () => {
    pod.exec('c1', 'e', { args: ['x'] }, NOWHERE);
    machine.answer = () => {
      throw new BerthError('internal', 'no such file');
    };
    await expect(pod.start('c1', 'e')).rejects.toThrow(/no such file/);
    machine.answer = () => ({});
    await pod.delete('c1', 'e');
  });

  it('that were never started can be killed and deleted', async () => {
    pod.exec('c1', 'e', { args: ['x'] }, NOWHERE);
    await pod.kill('c1', 'e', 9, false);
    expect((await pod.delete('c1', 'e')).end.code).toBe(137);
    expect(machine.calls).not.toContain('exec');
  });
});

describe('what is refused', () => {
  it.each([
    ['a container without a sandbox', () => create('c1', CONTAINER), 'unavailable'],
    ['a task that is not there', async () => pod.start('x', ''), 'notFound'],
  ])('%s', async (_what, act, kind) => {
    await expect(act()).rejects.toMatchObject({ kind });
  });

  it('a second task of one id, a second start, and a deletion of what runs', async () => {
    await create('sb', SANDBOX);
    await expect(create('sb', SANDBOX)).rejects.toMatchObject({ kind: 'alreadyExists' });
    await pod.start('sb', '');
    await expect(pod.start('sb', '')).rejects.toMatchObject({ kind: 'precondition' });
    await expect(pod.delete('sb', '')).rejects.toMatchObject({ kind: 'precondition' });
    expect(() => pod.exec('sb', 'e', {}, NOWHERE)).toThrow(/a sandbox has no commands/);
  });

  it('leaves nothing of a container that the guest refuses', async () => {
    await create('sb', SANDBOX);
    machine.answer = (method) => {
      if (method === 'createContainer') throw new BerthError('invalid', 'no');
      return {};
    };
    await expect(create('c1', CONTAINER)).rejects.toThrow('no');
    expect(machine.calls).toEqual(['share c1', 'createContainer', 'remove', 'unshare c1']);
    expect(() => pod.process('c1', '')).toThrow(/not found/);
  });
});
