import { closeSync, openSync, readdirSync } from 'node:fs';
import { createServer } from 'node:net';
import { setImmediate } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { OpenFileCounts } from '../../../src/metrics/open-files.ts';

describe('OpenFileCounts', () => {
  it('counts this process’s descriptors, sockets and limit, however many there are', async () => {
    const server = createServer().listen(0, '127.0.0.1');
    await new Promise((resolve) => server.once('listening', resolve));
    const opened = Array.from({ length: 300 }, () => openSync('/dev/null', 'r'));
    const real = readdirSync('/proc/self/fd').length;
    const counts = new OpenFileCounts();
    // Twice the same process, to be above what is looked at within a scrape, and to be added up.
    const many = () => counts.of('many', [process.pid, process.pid], process.pid);
    expect(many().sockets).toBeUndefined();
    // `real` counts the descriptor that it was read by.
    expect(Number(many().descriptors)).toBeGreaterThanOrEqual(2 * (real - 1));
    expect(Number(many().descriptors)).toBeLessThan(2 * real + 10);
    expect(many().softLimit).toBeGreaterThan(100n);
    while (many().sockets === undefined) await setImmediate();
    const sockets = many().sockets ?? 0n;
    expect(sockets).toBeGreaterThanOrEqual(2n);
    for (const fd of opened) closeSync(fd);
    const few = counts.of('few', [process.pid], undefined);
    expect(few.softLimit).toBeUndefined();
    expect(few.sockets).toBe(sockets / 2n);
    server.close();
    // Counted once a minute only, until the container is forgotten.
    expect(counts.of('few', [process.pid], undefined).sockets).toBe(few.sockets);
    counts.retain(new Set());
    await new Promise((resolve) => server.once('close', resolve));
    expect(counts.of('few', [process.pid], undefined).sockets).toBe((few.sockets ?? 0n) - 1n);
  });

  it('takes processes that have ended for none', () => {
    const counts = new OpenFileCounts();
    expect(counts.of('gone', [2 ** 22 + 1], 2 ** 22 + 1)).toEqual({
      descriptors: 0n,
      sockets: 0n,
      softLimit: undefined,
    });
  });
});
