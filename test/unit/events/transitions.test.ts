import { describe, expect, it } from 'vitest';
import type { ContainerRecord } from '../../../src/container/record.ts';
import { containerEvents, sandboxEvents } from '../../../src/events/transitions.ts';
import type { SandboxRecord } from '../../../src/sandbox/record.ts';
import { container, sandbox } from '../cri/records.ts';

const exit = { code: 0, finishedAt: 9n, reason: 'Completed', message: '' };
const cleanup = { attempts: 1, lastError: 'x' };

type Step = Partial<ContainerRecord> | undefined;

/** What a record that goes through these states tells, a list for each change. */
function life(...steps: Step[]): string[][] {
  const records = steps.map((step) => (step === undefined ? undefined : container(step)));
  return records.map((after, i) => containerEvents(records[i - 1], after));
}

describe('containerEvents', () => {
  it('tells an ordinary life', () => {
    expect(
      life(
        { phase: 'creating' },
        { phase: 'live' },
        { startedAt: 5n },
        { startedAt: 5n, resources: { cpuShares: 2n } },
        { startedAt: 5n, exit },
        { startedAt: 5n, exit, reaped: true },
        { startedAt: 5n, exit, reaped: true, phase: 'removing' },
        undefined,
      ),
    ).toEqual([[], ['created'], ['started'], [], ['stopped'], [], ['deleted'], []]);
  });

  it('tells the start before an end that was on record earlier', () => {
    expect(life({}, { exit }, { exit, startedAt: 5n }, { exit, startedAt: 5n, reaped: true })).toEqual([
      ['created'],
      [],
      ['started', 'stopped'],
      [],
    ]);
  });

  it.each<[string, Partial<ContainerRecord>]>([
    ['is cleared up after', { reaped: true }],
    ['cannot be cleared up after yet', { cleanup }],
  ])('tells the end of one that never started when it %s', (_name, over) => {
    expect(life({}, { exit }, { exit, ...over }, { exit, ...over, phase: 'removing' })).toEqual([
      ['created'],
      [],
      ['stopped'],
      ['deleted'],
    ]);
    expect(life({}, { exit }, { exit, phase: 'removing' })).toEqual([
      ['created'],
      [],
      ['stopped', 'deleted'],
    ]);
  });

  it('tells no start of one that could not be started', () => {
    expect(life({}, { startedAt: 5n, exit })).toEqual([['created'], ['stopped']]);
  });

  it('tells nothing of one whose creation failed', () => {
    expect(
      life({ phase: 'creating' }, { phase: 'removing' }, { phase: 'removing', cleanup }, undefined),
    ).toEqual([[], [], [], []]);
  });
});

describe('sandboxEvents', () => {
  const life = (...steps: (Partial<SandboxRecord> | undefined)[]) => {
    const records = steps.map((step) => (step === undefined ? undefined : sandbox(step)));
    return records.map((after, i) => sandboxEvents(records[i - 1], after));
  };

  it('tells its life', () => {
    const stopped = { stoppedAt: 7n };
    expect(
      life(
        { phase: 'creating' },
        {},
        stopped,
        { ...stopped, ips: [] },
        { ...stopped, phase: 'removing' },
        undefined,
      ),
    ).toEqual([[], ['created', 'started'], ['stopped'], [], ['deleted'], []]);
  });

  it('tells nothing of one whose creation failed', () => {
    expect(life({ phase: 'creating' }, { phase: 'removing' }, undefined)).toEqual([[], [], []]);
  });
});
