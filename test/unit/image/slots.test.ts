import { describe, expect, it } from 'vitest';
import { Growth } from '../../../src/image/growth.ts';
import { KeyedSlots, nested, Semaphore } from '../../../src/image/semaphore.ts';
import { UnpackSlots } from '../../../src/image/unpack/slots.ts';

const never = new AbortController().signal;

/** Work that runs until it is let go. */
function works() {
  const running: string[] = [];
  const ends = new Map<string, () => void>();
  return {
    running,
    work: (name: string) => async () => {
      running.push(name);
      await new Promise<void>((resolve) => ends.set(name, resolve));
      running.splice(running.indexOf(name), 1);
    },
    end: async (name: string) => {
      ends.get(name)?.();
      await settle();
    },
  };
}

/** All that follows from what has happened. */
const settle = () => new Promise<void>((resolve) => setImmediate(resolve));

describe('Semaphore', () => {
  it('lets as many run as it has slots, the others in order, and those that give up not at all', async () => {
    const { running, work, end } = works();
    const semaphore = new Semaphore(1);
    const leaving = new AbortController();
    const first = semaphore.run(never, work('a'));
    const second = semaphore.run(leaving.signal, work('b'));
    const third = semaphore.run(never, work('c'));
    await settle();
    expect(running).toEqual(['a']);
    leaving.abort(new Error('gone'));
    await expect(second).rejects.toThrow('gone');
    await end('a');
    expect(running).toEqual(['c']);
    await end('c');
    await Promise.all([first, third]);
    await expect(semaphore.run(leaving.signal, work('d'))).rejects.toThrow('gone');
    await expect(semaphore.run(never, () => Promise.reject(new Error('failed')))).rejects.toThrow('failed');
    await semaphore.run(never, async () => {});
  });

  it('may be nested, and one per key', async () => {
    const { running, work, end } = works();
    const [keyed, all] = [new KeyedSlots(1), new Semaphore(2)];
    const pulls = ['a1', 'a2', 'b1', 'c1'].map((name) =>
      nested(keyed.of(name.slice(0, 1)), all).run(never, work(name)),
    );
    await settle();
    expect(running).toEqual(['a1', 'b1']);
    await end('a1');
    expect(running).toEqual(['b1', 'c1']);
    await end('b1');
    expect(running).toEqual(['c1', 'a2']);
    await end('c1');
    await end('a2');
    await Promise.all(pulls);
  });
});

describe('UnpackSlots', () => {
  it('keeps one slot for what is on disk', async () => {
    const { running, work, end } = works();
    const slots = new UnpackSlots(3);
    const growing = ['g1', 'g2', 'g3'].map(() => new Growth());
    const all = growing.map((growth, i) => slots.run(never, growth, work(`g${i + 1}`)));
    await settle();
    expect(running).toEqual(['g1', 'g2']);
    const stored = slots.run(never, Growth.stored('/x', 1), work('s'));
    await settle();
    expect(running).toEqual(['g1', 'g2', 's']);
    await end('s');
    expect(running).toEqual(['g1', 'g2']);
    // It counts as on disk from the moment that it is.
    growing[2]?.complete('/y');
    await settle();
    expect(running).toEqual(['g1', 'g2', 'g3']);
    for (const name of ['g1', 'g2', 'g3']) await end(name);
    await Promise.all([...all, stored]);
    expect(slots.active).toBe(0);
  });

  it('forgets who gives up', async () => {
    const { running, work, end } = works();
    const slots = new UnpackSlots(2);
    const leaving = new AbortController();
    const first = slots.run(never, new Growth(), work('a'));
    const second = slots.run(leaving.signal, new Growth(), work('b'));
    const third = slots.run(never, new Growth(), work('c'));
    await settle();
    leaving.abort(new Error('gone'));
    await expect(second).rejects.toThrow('gone');
    await end('a');
    expect(running).toEqual(['c']);
    await end('c');
    await Promise.all([first, third]);
  });
});
