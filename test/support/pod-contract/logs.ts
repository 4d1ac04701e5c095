import { existsSync } from 'node:fs';
import { rename, stat } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import { type LogLine, refusal, sh, until } from '../pods.ts';
import type { Suite } from './suite.ts';

const TEN_MB = 10_000_000;
/** A line of 100 bytes with its end. */
const WORD = '0123456789'.repeat(10).slice(1);

/** What a stream said, parts put together. */
const said = (lines: LogLine[], stream: string) =>
  lines
    .filter((line) => line.stream === stream)
    .map(({ text, tag }) => (tag === 'F' ? `${text}\n` : text))
    .join('');

/** A container's log. */
export function describeLogs(suite: Suite): void {
  const logOf = async (script: string, more = {}) => {
    const { id, log_path } = await suite.pods.runToEnd(suite.pod, sh(script, more));
    return { id, lines: await suite.pods.log(log_path) };
  };

  describe('the log', () => {
    it('has both streams, parts of lines and bytes as they are, with times in order', async () => {
      const script =
        'echo one; sleep 0.2; echo two >&2; sleep 0.2; printf begun; sleep 0.5; echo " and done"; ' +
        'printf "a\\000b\\377\\r\\n"; echo; printf "no end"';
      const { lines, id } = await logOf(script);
      expect(lines.map(({ stream, tag, text }) => [stream, tag, text])).toEqual([
        ['stdout', 'F', 'one'],
        ['stderr', 'F', 'two'],
        ['stdout', 'P', 'begun'],
        ['stdout', 'F', ' and done'],
        ['stdout', 'F', 'a\0b\xff\r'],
        ['stdout', 'F', ''],
        ['stdout', 'P', 'no end'],
      ]);
      const times = lines.map(({ time }) => Date.parse(time));
      expect(times).toEqual([...times].sort((a, b) => a - b));
      expect((times[3] ?? 0) - (times[0] ?? 0)).toBeGreaterThan(500);
      const reopened = suite.berthd.client.runtime('ReopenContainerLog', { container_id: id });
      expect((await refusal(reopened)).kind).toBe('precondition');
    });

    it('of a terminal has the terminal’s lines', async () => {
      const { lines } = await logOf('test -t 0 && test -t 1 && test -t 2 && echo $TERM; echo err >&2', {
        tty: true,
      });
      expect([said(lines, 'stdout'), said(lines, 'stderr')]).toEqual(['xterm\r\nerr\r\n', '']);
    });

    it('holds 10 MB of both streams at once, whole and in order, before the end is told', async () => {
      const line = (letter: string) => `head -c 1048576 /dev/zero | tr '\\0' ${letter}; echo`;
      const { lines } = await logOf(`{ ${line('e')}; } >&2 & yes ${WORD} | head -c ${TEN_MB}; wait`);
      expect(said(lines, 'stdout') === `${WORD}\n`.repeat(TEN_MB / 100)).toBe(true);
      expect(said(lines, 'stderr') === `${'e'.repeat(1 << 20)}\n`).toBe(true);
      // Readers hold one part at a time.
      expect(lines.filter(({ text }) => text.length > 16 * 1024)).toEqual([]);
    });

    it('is rotated under a writer without loss', async () => {
      const { pods, pod, berthd } = suite;
      const writer =
        'i=0; while [ $i -lt 4000 ]; do echo "line $i"; i=$((i+1)); [ $((i % 400)) = 0 ] && sleep 0.01; done';
      const id = await pods.start(pod, sh(writer));
      const { log_path } = await pods.status(id);
      const files: string[] = [];
      const runs = async () => (await pods.status(id)).state === 'CONTAINER_RUNNING';
      for (;;) {
        await until(
          'there is more',
          async () => (await stat(log_path)).size > 5_000 || !(await runs()),
          60_000,
        );
        if (!(await runs())) break;
        const rotated = `${log_path}.${files.length}`;
        await rename(log_path, rotated);
        files.push(rotated);
        // It may have ended in between; then nothing more is written.
        const call = berthd.client.runtime('ReopenContainerLog', { container_id: id });
        if (!(await call.then(() => existsSync(log_path)).catch(() => false))) break;
      }
      expect((await pods.ended(id)).exit_code).toBe(0);
      expect(files.length).toBeGreaterThan(1);
      const all = await Promise.all([...files, log_path].filter(existsSync).map((file) => pods.log(file)));
      const expected = Array.from({ length: 4_000 }, (_, i) => `line ${i}\n`).join('');
      expect(said(all.flat(), 'stdout') === expected).toBe(true);
    });
  });
}
