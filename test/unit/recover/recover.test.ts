import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { ContainerExit } from '../../../src/container/record.ts';
import { containerRecovery, type Recovery, recover, sandboxRecovery, sweep } from '../../../src/recover.ts';
import { identify, type ProcessIdentity } from '../../../src/sys/process-identity.ts';
import { container, sandbox } from '../cri/records.ts';
import { namespaces, sandboxConfig } from '../spec/configs.ts';
import { fakeServices } from './services.ts';

const EXIT: ContainerExit = { code: 3, finishedAt: 9n, reason: 'Error', message: '' };
/** This process, and one that had its number before. */
const ALIVE = identify(process.pid) as ProcessIdentity;
const RECYCLED: ProcessIdentity = { pid: process.pid, startTime: 1n };

type Answer = 'yes' | 'no' | 'either';
const values = (answer: Answer) => (answer === 'either' ? [true, false] : [answer === 'yes']);

describe('sandboxRecovery', () => {
  it.each<[string, Parameters<typeof sandbox>[0], Answer, Answer, Recovery]>([
    // record                      same boot  alive
    ['half made', { phase: 'creating' }, 'either', 'either', 'discard'],
    ['half made and stopped', { phase: 'creating', stoppedAt: 1n }, 'either', 'either', 'discard'],
    ['half removed', { phase: 'removing' }, 'either', 'either', 'discard'],
    ['half removed and stopped', { phase: 'removing', stoppedAt: 1n }, 'either', 'either', 'discard'],
    ['ready', {}, 'yes', 'yes', 'watch'],
    ['ready', {}, 'yes', 'no', 'ended'],
    ['ready', {}, 'no', 'either', 'ended'],
    ['stopped', { stoppedAt: 1n }, 'either', 'either', 'nothing'],
  ])('%s: %o, same boot %s, held %s: %s', (_name, over, sameBoot, alive, expected) => {
    for (const boot of values(sameBoot)) {
      for (const pause of values(alive)) expect(sandboxRecovery(sandbox(over), boot, pause)).toBe(expected);
    }
  });
});

describe('containerRecovery', () => {
  it.each<[string, Parameters<typeof container>[0], Answer, Answer, Recovery]>([
    // record                      same boot  alive
    ['half made', { phase: 'creating' }, 'either', 'either', 'discard'],
    ['half removed', { phase: 'removing', exit: EXIT, reaped: true }, 'either', 'either', 'discard'],
    ['created', {}, 'yes', 'yes', 'watch'],
    ['created', {}, 'yes', 'no', 'ended'],
    ['created', {}, 'no', 'either', 'ended'],
    ['refused by the OCI runtime', { createError: 'no such file' }, 'yes', 'either', 'nothing'],
    ['refused by the OCI runtime', { createError: 'no such file' }, 'no', 'either', 'ended'],
    ['running', { startedAt: 1n }, 'yes', 'yes', 'watch'],
    ['running', { startedAt: 1n }, 'yes', 'no', 'ended'],
    ['running', { startedAt: 1n }, 'no', 'either', 'ended'],
    ['exited, not cleaned up', { startedAt: 1n, exit: EXIT }, 'either', 'either', 'ended'],
    ['exited', { startedAt: 1n, exit: EXIT, reaped: true }, 'either', 'either', 'nothing'],
    ['refused and started', { createError: 'x', exit: EXIT, reaped: true }, 'either', 'either', 'nothing'],
  ])('%s: %o, same boot %s, monitor alive %s: %s', (_name, over, sameBoot, alive, expected) => {
    for (const boot of values(sameBoot)) {
      for (const monitor of values(alive)) {
        expect(containerRecovery(container(over), boot, monitor)).toBe(expected);
      }
    }
  });
});

describe('recover', () => {
  let fake: ReturnType<typeof fakeServices>;
  beforeEach(() => {
    fake = fakeServices();
  });
  afterEach(() => fake.close());
  const problems = () => fake.machine.logged.filter(({ level }) => level !== 'info');

  it.each<[string, Parameters<typeof sandbox>[0], { watched: boolean; ready: boolean; phase: string }]>([
    ['a pause that runs', { pause: ALIVE }, { watched: true, ready: true, phase: 'live' }],
    ['a pause that has ended', { pause: RECYCLED }, { watched: false, ready: false, phase: 'live' }],
    ['no pause and no pins', {}, { watched: false, ready: false, phase: 'live' }],
    [
      'no pause, and nothing that would have to be pinned',
      { config: sandboxConfig({}, { namespaces: namespaces({ network: 'node', ipc: 'node' }) }) },
      { watched: false, ready: true, phase: 'live' },
    ],
    [
      'a pause of another boot whose number and time are this one’s',
      { pause: ALIVE, bootId: 'another' },
      { watched: false, ready: false, phase: 'live' },
    ],
    [
      'a half-made one',
      { phase: 'creating', pause: ALIVE },
      { watched: false, ready: true, phase: 'removing' },
    ],
  ])('does right by a sandbox with %s', async (_name, over, expected) => {
    const { s, machine, addSandbox } = fake;
    addSandbox(over);
    await recover(s).done;
    const record = s.sandboxes.require('sb1');
    expect({
      watched: machine.watch.mock.calls.some(([id]) => id === 'sb1'),
      ready: record.stoppedAt === undefined,
      phase: record.phase,
    }).toEqual(expected);
    expect(problems()).toEqual([]);
  });

  it.each<[string, object, string[]]>([
    [
      'lets lists be answered before helpers of the earlier berthd are looked for',
      { startedAt: 5n },
      ['begun', 'sandbox', 'container', 'known', 'helpers', 'done'],
    ],
    [
      'ends them first where one may be starting a container',
      {},
      ['begun', 'helpers', 'sandbox', 'container', 'known', 'done'],
    ],
  ])('%s', async (_name, over, expected) => {
    const order: string[] = [];
    const at = async (point: string) => void order.push(point.replace('Recovery.', ''));
    const s = { ...fake.s, faults: { ...fake.s.faults, at } };
    fake.addSandbox({ pause: ALIVE });
    fake.addContainer({ conmon: ALIVE, ...over });
    const { known, done } = recover(s);
    known.then(() => order.push('known'));
    await done;
    order.push('done');
    expect(order).toEqual(expected);
  });

  it('keeps the time at which a sandbox was stopped', async () => {
    fake.addSandbox({ stoppedAt: 5n });
    await recover(fake.s).done;
    expect(fake.s.sandboxes.require('sb1').stoppedAt).toBe(5n);
  });

  it('watches a container whose monitor runs, and leaves its end to it', async () => {
    const { s, machine, addSandbox, addContainer } = fake;
    addSandbox({ pause: ALIVE });
    const record = addContainer({ conmon: ALIVE, startedAt: 5n });
    await recover(s).done;
    expect(machine.watch).toHaveBeenCalledWith('c1', ALIVE, expect.any(Function));
    expect(s.containers.require('c1')).toEqual(record);
    expect(machine.isStarted).not.toHaveBeenCalled();
  });

  it.each([true, false])('asks whether one that is created on record was started: %s', async (started) => {
    const { s, machine, addSandbox, addContainer } = fake;
    addSandbox({ pause: ALIVE });
    addContainer({ conmon: ALIVE });
    machine.isStarted.mockResolvedValue(started);
    await recover(s).done;
    expect(s.containers.require('c1').startedAt !== undefined).toBe(started);
    expect(machine.isStarted).toHaveBeenCalledExactlyOnceWith('c1');
  });

  it.each<[string, string | undefined, bigint | undefined, Partial<ContainerExit>]>([
    ['an exit file', '0', 0n, { code: 0, reason: 'Completed', message: '' }],
    ['an exit file with a newline', '137\n', 0n, { code: 137, reason: 'Error' }],
    ['an exit file after OOM', '137', 1n, { code: 137, reason: 'OOMKilled' }],
    ['a success though a child was killed for memory', '0', 1n, { code: 0, reason: 'Completed' }],
    ['an exit file, the cgroup gone', '2', undefined, { code: 2, reason: 'Error' }],
    ['no exit file', undefined, 0n, { code: 255, reason: 'Unknown' }],
    ['no exit file after OOM', undefined, 1n, { code: 255, reason: 'Unknown' }],
    ['an empty exit file', '', 0n, { code: 255, reason: 'Unknown' }],
    ['a cut exit file', 'x', 0n, { code: 255, reason: 'Unknown' }],
    ['conmon’s -1 for a wait that failed', '-1', 0n, { code: 255, reason: 'Unknown' }],
  ])('records the end of a container with %s', async (_name, file, oomKills, expected) => {
    const { s, machine, addSandbox, addContainer } = fake;
    addSandbox({ pause: ALIVE });
    addContainer({ conmon: RECYCLED, startedAt: 5n });
    machine.oomKills.mockReturnValue(oomKills);
    if (file !== undefined) await writeFile(s.paths.container('c1').exit, file);
    await recover(s).done;
    const { exit, reaped } = s.containers.require('c1');
    expect(exit).toMatchObject(expected);
    expect(exit?.finishedAt).toBeGreaterThan(5n);
    expect(exit?.message === '').toBe(expected.code !== 255);
    expect(machine.oomKills).toHaveBeenCalledWith('/p/c1');
    // What takes long is left to the repairs, after lists are answered.
    expect(reaped).toBeUndefined();
    expect(machine.killCgroup).not.toHaveBeenCalled();
    expect(problems()).toEqual([]);
  });

  it('never lets a container end before it began', async () => {
    const { s, addSandbox, addContainer } = fake;
    addSandbox();
    const startedAt = 2n ** 62n;
    addContainer({ conmon: RECYCLED, startedAt });
    await writeFile(s.paths.container('c1').exit, '1');
    await recover(s).done;
    expect(s.containers.require('c1').exit?.finishedAt).toBe(startedAt);
  });

  it('records everything as ended after a reboot, whatever has the pids now', async () => {
    const { s, machine, addSandbox, addContainer } = fake;
    addSandbox({ pause: ALIVE, bootId: 'another' });
    addContainer({ conmon: ALIVE, startedAt: 5n });
    addContainer({ id: 'c2', createError: 'no such file' });
    await recover(s).done;
    expect(machine.watch).not.toHaveBeenCalled();
    expect(s.containers.require('c1').exit).toMatchObject({ code: 255, reason: 'Unknown' });
    // It never began, so nothing about it is unknown.
    expect(s.containers.require('c2').exit).toMatchObject({ code: 128, reason: 'StartError' });
    expect(s.sandboxes.require('sb1').stoppedAt).toBeDefined();
  });

  it('keeps the end that is on record', async () => {
    fake.addSandbox();
    fake.addContainer({ startedAt: 1n, exit: EXIT });
    await writeFile(fake.s.paths.container('c1').exit, '99');
    await recover(fake.s).done;
    expect(fake.s.containers.require('c1').exit).toEqual(EXIT);
  });

  it('puts what was half made on the to-do list', async () => {
    fake.addSandbox({ phase: 'creating' });
    fake.addContainer({ phase: 'creating' });
    await recover(fake.s).done;
    expect(fake.s.containers.require('c1').phase).toBe('removing');
    expect(fake.s.sandboxes.require('sb1').phase).toBe('removing');
  });

  it('goes on with the rest after one that cannot be dealt with', async () => {
    const { s, machine, addSandbox, addContainer } = fake;
    addSandbox({ pause: ALIVE });
    for (const id of ['c1', 'c2', 'c3']) addContainer({ id, conmon: ALIVE });
    machine.isStarted.mockImplementation(async (id) => {
      if (id === 'c2') throw new Error('the runtime is gone');
      return true;
    });
    await recover(s).done;
    const started = [...s.containers.values()].filter((c) => c.startedAt !== undefined).map(({ id }) => id);
    expect(started).toEqual(['c1', 'c3']);
    expect(machine.watch).toHaveBeenCalledTimes(4);
    expect(problems()).toEqual([
      expect.objectContaining({ level: 'error', fields: { container: 'c2', reason: 'the runtime is gone' } }),
    ]);
  });
});

describe('sweep', () => {
  let fake: ReturnType<typeof fakeServices>;
  beforeEach(() => {
    fake = fakeServices();
  });
  afterEach(() => fake.close());

  it('removes directories that no record names, and nothing else', async () => {
    const { s, addSandbox, addContainer } = fake;
    const [known, stray] = ['a'.repeat(64), 'b'.repeat(64)];
    addSandbox({ id: known });
    addContainer({ id: known, sandboxId: known });
    const owners = [s.paths.sandboxes, s.paths.bundles, s.paths.writableLayers];
    const of = (id: string) => owners.map((dir) => path.join(dir, id));
    // Names that berth does not make are others' business.
    const others = ['lost+found', 'B'.repeat(64), 'b'.repeat(63), `${'b'.repeat(64)}.bak`].flatMap(of);
    for (const dir of [...of(known), ...of(stray), ...others])
      await mkdir(path.join(dir, 'sub'), { recursive: true });
    await sweep(s);
    expect(of(stray).filter(existsSync)).toEqual([]);
    expect([...of(known), ...others].filter((dir) => !existsSync(dir))).toEqual([]);
  });
});
