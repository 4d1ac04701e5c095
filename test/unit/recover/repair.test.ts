import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { type ContainerRecord, containerKey } from '../../../src/container/record.ts';
import type { Attachment } from '../../../src/network/attachment.ts';
import { Repairs, repairsDue } from '../../../src/repair.ts';
import { type SandboxRecord, sandboxKey } from '../../../src/sandbox/record.ts';
import { fakeServices } from './services.ts';

const EXIT = { code: 3, finishedAt: 9n, reason: 'Error', message: '' };
const ATTACHMENT = { sandboxId: 'sb1' } as Attachment;

let fake: ReturnType<typeof fakeServices>;
beforeEach(() => {
  fake = fakeServices();
});
afterEach(() => fake.close());

describe('repairsDue', () => {
  it.each<[string, Partial<ContainerRecord>, string | undefined]>([
    ['half made and abandoned', { phase: 'creating' }, 'removal'],
    ['half removed', { phase: 'removing' }, 'removal'],
    ['half removed after its end', { phase: 'removing', exit: EXIT, reaped: true }, 'removal'],
    ['created', {}, undefined],
    ['refused by the OCI runtime', { createError: 'no such file' }, undefined],
    ['running', { startedAt: 1n }, undefined],
    ['exited', { startedAt: 1n, exit: EXIT }, 'remains of an exited container'],
    ['exited and cleaned up', { startedAt: 1n, exit: EXIT, reaped: true }, undefined],
  ])('for a container %s: %o: %s', (_name, over, what) => {
    fake.addSandbox();
    fake.addContainer(over);
    expect(repairsDue(fake.s).map((due) => [due.kind, due.id, due.what])).toEqual(
      what === undefined ? [] : [['container', 'c1', what]],
    );
  });

  it.each<[string, Partial<SandboxRecord>, string | undefined]>([
    ['half made and abandoned', { phase: 'creating', attachment: ATTACHMENT }, 'removal'],
    ['half removed', { phase: 'removing' }, 'removal'],
    ['ready', { attachment: ATTACHMENT }, undefined],
    // StopPodSandbox is still to come, and it is the caller who says when the address is free.
    ['whose pause has ended', { stoppedAt: 1n, attachment: ATTACHMENT }, undefined],
    ['stopped', { stoppedAt: 1n }, undefined],
    [
      'of another boot',
      { stoppedAt: 1n, bootId: 'another', attachment: ATTACHMENT },
      'network of a stopped sandbox',
    ],
    ['of another boot without network', { stoppedAt: 1n, bootId: 'another' }, undefined],
  ])('for a sandbox %s: %o: %s', (_name, over, what) => {
    fake.addSandbox(over);
    expect(repairsDue(fake.s).map((due) => [due.kind, due.id, due.what])).toEqual(
      what === undefined ? [] : [['sandbox', 'sb1', what]],
    );
  });

  it('does not disturb what is being made', () => {
    const { s, addSandbox, addContainer } = fake;
    const pod = addSandbox({ phase: 'creating' });
    const made = addContainer({ phase: 'creating' });
    const work = () => new Promise<string>(() => {});
    void s.creating.run(sandboxKey(pod.config), work);
    expect(repairsDue(s)).toMatchObject([{ id: 'c1' }]);
    void s.creating.run(containerKey(made.sandboxId, made.config), work);
    expect(repairsDue(s)).toEqual([]);
  });

  it('tells how often it was tried, and why it failed', () => {
    fake.addSandbox();
    fake.addContainer({ exit: EXIT, cleanup: { attempts: 3, lastError: 'cgroup: busy' } });
    expect(repairsDue(fake.s)[0]?.cleanup).toEqual({ attempts: 3, lastError: 'cgroup: busy' });
  });
});

describe('Repairs', () => {
  let repairs: Repairs | undefined;
  beforeEach(() => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'performance'] });
  });
  afterEach(async () => {
    await repairs?.close();
    vi.useRealTimers();
  });
  const passing = (seconds: number) => vi.advanceTimersByTimeAsync(seconds * 1_000);
  const attempts = (id: string) => fake.s.containers.require(id).cleanup?.attempts;

  it('goes on with the others when one fails, and tries that again, ever seldomer', async () => {
    const { s, machine, addSandbox, addContainer } = fake;
    addSandbox();
    for (const id of ['c1', 'c2']) addContainer({ id, exit: EXIT });
    machine.delete.mockImplementation(async (id) => {
      if (id === 'c1') throw new Error('busy');
      return undefined;
    });
    repairs = new Repairs(s);
    await expect.poll(() => s.containers.require('c2').reaped).toBe(true);
    await expect.poll(() => attempts('c1')).toBe(1);
    expect(s.containers.require('c1').cleanup?.lastError).toBe('OCI runtime: busy');
    await passing(1.5);
    await expect.poll(() => attempts('c1')).toBe(2);
    await passing(1);
    expect(attempts('c1')).toBe(2);
    machine.delete.mockResolvedValue(undefined);
    await passing(10);
    await expect.poll(() => s.containers.require('c1').reaped).toBe(true);
    expect(s.containers.require('c1')).toMatchObject({ exit: EXIT, cleanup: undefined });
  });

  it('does not begin anew what it is busy with, nor lets it hold up the others', async () => {
    const { s, machine, addSandbox, addContainer } = fake;
    addSandbox();
    addContainer({ exit: EXIT });
    const stuck = Promise.withResolvers<undefined>();
    machine.killCgroup.mockReturnValueOnce(stuck.promise);
    repairs = new Repairs(s);
    await expect.poll(() => machine.killCgroup.mock.calls.length).toBe(1);
    addContainer({ id: 'c2', exit: EXIT });
    await passing(100);
    await expect.poll(() => s.containers.require('c2').reaped).toBe(true);
    expect(machine.killCgroup).toHaveBeenCalledTimes(2);
    stuck.resolve(undefined);
    await expect.poll(() => s.containers.require('c1').reaped).toBe(true);
  });

  it('looks again when it has the lock: another may have done the work', async () => {
    const { s, machine, addSandbox, addContainer } = fake;
    addSandbox();
    addContainer({ exit: EXIT });
    const held = Promise.withResolvers<void>();
    const holder = s.locks.run('c1', async () => {
      await held.promise;
      s.containers.update('c1', { reaped: true });
    });
    repairs = new Repairs(s);
    held.resolve();
    await holder;
    await repairs.close();
    expect(machine.killCgroup).not.toHaveBeenCalled();
  });

  it('ends with what it is busy with', async () => {
    const { s, machine, addSandbox, addContainer } = fake;
    addSandbox();
    addContainer({ exit: EXIT });
    const stuck = Promise.withResolvers<undefined>();
    machine.killCgroup.mockReturnValueOnce(stuck.promise);
    repairs = new Repairs(s);
    await expect.poll(() => machine.killCgroup.mock.calls.length).toBe(1);
    const closed = vi.fn();
    const closing = repairs.close().then(closed);
    addContainer({ id: 'c2', exit: EXIT });
    await passing(100);
    expect(closed).not.toHaveBeenCalled();
    stuck.resolve(undefined);
    await closing;
    expect(s.containers.require('c1').reaped).toBe(true);
    expect(s.containers.require('c2').reaped).toBeUndefined();
  });
});
