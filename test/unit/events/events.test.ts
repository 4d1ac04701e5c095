import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { toContainerEvent } from '../../../cri/mapping/events.ts';
import { kindOf } from '../../../src/errors.ts';
import { type ContainerEvent, Events, type Subscription } from '../../../src/events/events.ts';
import { fakeServices } from '../recover/services.ts';

let fake: ReturnType<typeof fakeServices>;
let events: Events;
beforeEach(() => {
  fake = fakeServices();
  events = new Events(fake.s.sandboxes, fake.s.containers);
});
afterEach(() => {
  events.close();
  fake.close();
});

/** Everything until the end. */
async function rest(subscription: Subscription): Promise<ContainerEvent[]> {
  subscription.end();
  return read(subscription);
}

async function read(subscription: Subscription): Promise<ContainerEvent[]> {
  const all: ContainerEvent[] = [];
  for await (const event of subscription) all.push(event);
  return all;
}
const words = (all: ContainerEvent[]) => all.map(({ id, type }) => `${id} ${type}`);

/** A container that is listed. */
const live = (id: string, sandboxId = 'sb1') => {
  fake.addContainer({ id, sandboxId, phase: 'creating' });
  fake.s.containers.update(id, { phase: 'live' });
};

describe('Events', () => {
  it('tells all subscribers the same, each from its own beginning, in the order of what happened', async () => {
    fake.addSandbox({ phase: 'creating' });
    const early = events.subscribe();
    fake.s.sandboxes.update('sb1', { phase: 'live' });
    live('c1');
    const late = events.subscribe();
    fake.s.containers.update('c1', { startedAt: 5n });
    const first = await rest(early);
    expect(words(first)).toEqual(['sb1 created', 'sb1 started', 'c1 created', 'c1 started']);
    expect(await rest(late)).toEqual(first.slice(3));
    for (const [i, event] of first.entries()) expect(event.at).toBeGreaterThan(first[i - 1]?.at ?? 0n);
  });

  it('carries the pod as it was right after each change', async () => {
    fake.addSandbox();
    const subscription = events.subscribe();
    live('c1');
    live('c2');
    const exit = { code: 137, finishedAt: 9n, reason: 'OOMKilled', message: '' };
    fake.s.containers.update('c1', { startedAt: 5n });
    fake.s.containers.update('c1', { exit });
    fake.s.sandboxes.update('sb1', { stoppedAt: 10n });
    const all = (await rest(subscription)).map(toContainerEvent);
    expect(all.map((e) => e.containers_statuses?.map(({ id, state }) => `${id} ${state}`))).toEqual([
      ['c1 CONTAINER_CREATED'],
      ['c1 CONTAINER_CREATED', 'c2 CONTAINER_CREATED'],
      ['c1 CONTAINER_RUNNING', 'c2 CONTAINER_CREATED'],
      ['c1 CONTAINER_EXITED', 'c2 CONTAINER_CREATED'],
      ['c1 CONTAINER_EXITED', 'c2 CONTAINER_CREATED'],
    ]);
    expect(all[3]).toMatchObject({
      container_id: 'c1',
      container_event_type: 'CONTAINER_STOPPED_EVENT',
      pod_sandbox_status: { id: 'sb1', state: 'SANDBOX_READY' },
      containers_statuses: [{ id: 'c1', exit_code: 137, reason: 'OOMKilled' }, { id: 'c2' }],
    });
    expect(all[4]).toMatchObject({
      container_id: 'sb1',
      pod_sandbox_status: { state: 'SANDBOX_NOTREADY' },
    });
  });

  it('tells the end of a pod’s containers before its own, once, however long the removal takes', async () => {
    fake.addSandbox();
    live('c1');
    live('c2');
    const subscription = events.subscribe();
    fake.s.sandboxes.update('sb1', { phase: 'removing' });
    for (const id of ['c1', 'c2']) {
      fake.s.containers.update(id, { phase: 'removing' });
      fake.s.containers.delete(id);
    }
    fake.s.sandboxes.delete('sb1');
    expect(words(await rest(subscription))).toEqual(['c1 deleted', 'c2 deleted', 'sb1 deleted']);
  });

  it('wakes a reader that waits', async () => {
    fake.addSandbox();
    const reader = events.subscribe()[Symbol.asyncIterator]();
    const next = reader.next();
    live('c1');
    expect((await next).value).toMatchObject({ id: 'c1', type: 'created' });
    await reader.return(undefined);
    expect(events.subscribers).toBe(0);
  });

  it('cuts off who is a thousand events behind, with an error, and nobody else', async () => {
    fake.addSandbox();
    live('c1');
    const slow = events.subscribe();
    const quick = events.subscribe()[Symbol.asyncIterator]();
    let told = 0;
    for (let i = 0; i < 501; i++) {
      fake.s.containers.update('c1', { startedAt: 5n });
      fake.s.containers.update('c1', { phase: 'removing' });
      for (let k = 0; k < 2; k++, told++) await quick.next();
      live('c1');
      await quick.next();
      told++;
    }
    expect(told).toBe(1503);
    expect([events.subscribers, events.cutOff]).toEqual([1, 1]);
    const failure = await rest(slow).catch((e: unknown) => e);
    expect(kindOf(failure)).toBe('exhausted');
  });

  it.each([
    ['the signal', (_: Events, stop: AbortController) => stop.abort()],
    ['closing', (all: Events) => all.close()],
  ])('ends subscriptions at %s', async (_name, end) => {
    fake.addSandbox();
    const stop = new AbortController();
    const reading = read(events.subscribe(stop.signal));
    end(events, stop);
    live('c1');
    expect(await reading).toEqual([]);
    expect(events.subscribers).toBe(0);
    expect(await read(events.subscribe(AbortSignal.abort()))).toEqual([]);
  });
});
