import { existsSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { noteExit, reapContainer, recordExit, watchContainer } from '../../../src/container/exit.ts';
import type { ContainerRecord } from '../../../src/container/record.ts';
import { fakeServices } from '../recover/services.ts';

const CONMON = { pid: 77, startTime: 1n };
const EXIT = { code: 3, finishedAt: 9n, reason: 'Error', message: '' };

let fake: ReturnType<typeof fakeServices>;
beforeEach(() => {
  fake = fakeServices();
  fake.addSandbox();
});
afterEach(() => fake.close());

const record = () => fake.s.containers.require('c1');
const exitFile = () => fake.s.paths.container('c1').exit;

describe('watchContainer', () => {
  it('waits for the monitor, not for the container, and then records the end', async () => {
    const { s, machine, addContainer } = fake;
    addContainer({ conmon: CONMON, init: { pid: 78, startTime: 1n }, startedAt: 5n });
    watchContainer(s, 'c1');
    expect(machine.watch).toHaveBeenCalledExactlyOnceWith('c1', CONMON, expect.any(Function));
    expect(record().exit).toBeUndefined();
    await writeFile(exitFile(), '7');
    await machine.watch.mock.calls[0]?.[2]();
    expect(record()).toMatchObject({ exit: { code: 7, reason: 'Error' }, reaped: true });
  });
});

describe('recordExit', () => {
  it('records the end first, then frees what only a running container needs', async () => {
    const { s, machine, addContainer } = fake;
    addContainer({ startedAt: 5n });
    await writeFile(exitFile(), '0');
    const order: string[] = [];
    const seen = (step: string) => async () => {
      order.push(`${step}, ${record().exit === undefined ? 'end unknown' : 'end on record'}`);
      return undefined;
    };
    machine.oomKills.mockImplementation(() => {
      order.push('oom counter, end unknown');
      return 0n;
    });
    machine.killCgroup.mockImplementation(seen('kill'));
    machine.delete.mockImplementation(seen('runtime'));
    machine.removeCgroup.mockImplementation(seen('cgroup'));
    await recordExit(s, 'c1');
    expect(order).toEqual([
      'oom counter, end unknown',
      'kill, end on record',
      'runtime, end on record',
      'cgroup, end on record',
    ]);
    expect(machine.killCgroup).toHaveBeenCalledWith('/p/c1', expect.any(AbortSignal));
    expect(machine.delete).toHaveBeenCalledWith('c1');
    expect(existsSync(exitFile())).toBe(false);
    expect(record().reaped).toBe(true);
  });

  it('is repeatable', async () => {
    const { s, machine, addContainer } = fake;
    addContainer({ startedAt: 5n });
    await writeFile(exitFile(), '4');
    await recordExit(s, 'c1');
    const first = record();
    await recordExit(s, 'c1');
    expect(record()).toEqual(first);
    expect(machine.delete).toHaveBeenCalledTimes(1);
  });

  it.each<[string, Partial<ContainerRecord> | undefined]>([
    ['is not there', undefined],
    ['is being made', { phase: 'creating' }],
    ['is being removed', { phase: 'removing' }],
  ])('leaves a container alone that %s', async (_name, over) => {
    const { s, machine, addContainer } = fake;
    if (over !== undefined) addContainer(over);
    await recordExit(s, 'c1');
    expect(s.containers.get('c1')?.exit).toBeUndefined();
    expect(machine.killCgroup).not.toHaveBeenCalled();
    expect(machine.delete).not.toHaveBeenCalled();
  });
});

describe('noteExit', () => {
  it('does not change an end that was recorded while the file was read', async () => {
    const { s, addContainer } = fake;
    addContainer({ startedAt: 5n });
    await writeFile(exitFile(), '0');
    const noting = noteExit(s, 'c1');
    s.containers.update('c1', { exit: EXIT });
    await noting;
    expect(record().exit).toEqual(EXIT);
  });

  it.each([
    ['the start', { startedAt: 2n ** 62n }],
    ['the creation of one that was never started', { createdAt: 2n ** 62n }],
  ])('puts no end before %s', async (_name, over) => {
    fake.addContainer(over);
    await writeFile(exitFile(), '1');
    await noteExit(fake.s, 'c1');
    expect(record().exit?.finishedAt).toBe(2n ** 62n);
  });

  it('tells why a container was never made, instead of calling its end unknown', async () => {
    fake.addContainer({ createError: 'no such file' });
    await noteExit(fake.s, 'c1');
    expect(record().exit).toMatchObject({ code: 128, reason: 'StartError', message: 'no such file' });
  });
});

describe('reapContainer', () => {
  it.each(['kill', 'runtime', 'cgroup'] as const)(
    'takes every other step when %s fails, and tries all again later',
    async (failing) => {
      const { s, machine, addContainer } = fake;
      addContainer({ startedAt: 5n, exit: EXIT });
      await writeFile(exitFile(), '3');
      const steps = { kill: machine.killCgroup, runtime: machine.delete, cgroup: machine.removeCgroup };
      steps[failing].mockRejectedValueOnce(new Error('busy'));
      await reapContainer(s, 'c1');
      for (const step of Object.values(steps)) expect(step).toHaveBeenCalledTimes(1);
      expect(existsSync(exitFile())).toBe(false);
      expect(record().reaped).toBeUndefined();
      expect(record().cleanup).toMatchObject({ attempts: 1, lastError: expect.stringMatching(/: busy$/) });
      expect(machine.logged).toMatchObject([{ level: 'warn', fields: { container: 'c1' } }]);

      await reapContainer(s, 'c1');
      expect(record().reaped).toBe(true);
      expect(record().cleanup).toBeUndefined();
    },
  );

  it('frees one whose handler is not configured any more', async () => {
    const { s, machine, addContainer } = fake;
    s.sandboxes.update('sb1', { runtimeHandler: 'gone' });
    addContainer({ startedAt: 5n, exit: EXIT });
    await reapContainer(s, 'c1');
    expect(machine.delete).not.toHaveBeenCalled();
    expect(machine.removeCgroup).toHaveBeenCalledWith('/p/c1');
    expect(record().reaped).toBe(true);
  });
});
