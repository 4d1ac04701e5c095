import { setTimeout as delay, setImmediate as turn } from 'node:timers/promises';
import { describe, expect, it, vi } from 'vitest';
import { AttachLock, ownProcsFile } from '../../../cgroups/attach-lock.ts';
import type { Hierarchy } from '../../../cgroups/mountinfo.ts';
import { eventually } from '../../support/eventually.ts';

describe('AttachLock', () => {
  it('is taken again and again, once at a time, while anybody works', async () => {
    let inside = 0;
    const take = vi.fn(async () => {
      expect(++inside).toBe(1);
      await turn();
      inside--;
    });
    const lock = new AttachLock(take);
    expect(take).not.toHaveBeenCalled();
    const [a, b] = [Promise.withResolvers<string>(), Promise.withResolvers<string>()];
    const both = [lock.ready(a.promise), lock.ready(b.promise)];
    await eventually(() => expect(take.mock.calls.length).toBeGreaterThan(2));
    a.resolve('a');
    expect(await both[0]).toBe('a');
    const soFar = take.mock.calls.length;
    await eventually(() => expect(take.mock.calls.length).toBeGreaterThan(soFar + 1));
    b.reject(new Error('b'));
    await expect(both[1]).rejects.toThrow('b');
    // One that was begun before the end may still come.
    await eventually(async () => {
      const before = take.mock.calls.length;
      await delay(20);
      expect(take.mock.calls.length).toBe(before);
    });
  });

  it('leaves work alone when it cannot be taken', async () => {
    const take = vi.fn(() => Promise.reject(new Error('EACCES')));
    const lock = new AttachLock(take);
    expect(await lock.ready(Promise.resolve(1))).toBe(1);
    expect(await lock.ready(delay(20, 2))).toBe(2);
    expect(take).toHaveBeenCalledTimes(2);
  });
});

describe('ownProcsFile', () => {
  const v1 = (...controllers: string[]): Hierarchy => ({
    mountpoint: `/cg/${controllers.join(',')}`,
    controllers,
    version: 1,
  });
  const v2: Hierarchy = { mountpoint: '/cg/unified', controllers: [], version: 2 };
  const text = '12:cpu,cpuacct:/a\n5:pids:/b:c\n1:name=systemd:/d\n0::/e\n';

  it.each<[string, Hierarchy[], string | undefined]>([
    ['hybrid', [v1('cpu', 'cpuacct'), v1('pids'), v2], '/cg/unified/e/cgroup.procs'],
    ['v1', [v1('cpu', 'cpuacct'), v1('pids')], '/cg/pids/b:c/cgroup.procs'],
    ['none', [], undefined],
  ])('%s', (_name, hierarchies, expected) => {
    expect(ownProcsFile(hierarchies, text)).toBe(expected);
  });
});
