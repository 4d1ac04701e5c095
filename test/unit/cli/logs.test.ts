import { appendFile, mkdtemp, open, rename, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readLog } from '../../../src/cli/logs/follow.ts';
import { type LogEntry, parseLine } from '../../../src/cli/logs/line.ts';
import { printLog } from '../../../src/cli/logs/print.ts';
import { tailOffset } from '../../../src/cli/logs/tail.ts';

const at = (second: number) => `2026-01-31T12:00:${String(second).padStart(2, '0')}.000000001Z`;
const line = (second: number, text: string, tag = 'F', stream = 'stdout') =>
  `${at(second)} ${stream} ${tag} ${text}\n`;

let directory: string;
let file: string;

beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'berth-logs-'));
  file = path.join(directory, '0.log');
});
afterEach(() => rm(directory, { recursive: true }));

const never = new AbortController().signal;

async function texts(entries: AsyncIterable<LogEntry>): Promise<string[]> {
  const all: string[] = [];
  for await (const { text } of entries) all.push(text.toString());
  return all;
}

describe('lines', () => {
  it('reads time, stream, tag and text', () => {
    expect(parseLine(Buffer.from(`${at(1)} stderr P a  b `))).toEqual({
      time: 1_769_860_801_000_000_001n,
      timeText: at(1),
      stream: 'stderr',
      final: false,
      text: Buffer.from('a  b '),
    });
    expect(parseLine(Buffer.from(`${at(1)} stdout F`))).toMatchObject({ final: true, text: Buffer.alloc(0) });
    expect(parseLine(Buffer.from(`${at(1)} stdout F:x text`))).toMatchObject({ final: true });
    expect(parseLine(Buffer.from([...Buffer.from(`${at(1)} stdout F `), 0xff, 0x00]))?.text).toEqual(
      Buffer.from([0xff, 0]),
    );
  });

  it.each(['', 'x', `${at(1)} stdout`, `${at(1)} stdin F x`, `${at(1)} stdout Q x`, 'yesterday stdout F x'])(
    'takes %j for none',
    (text) => expect(parseLine(Buffer.from(text))).toBeUndefined(),
  );
});

describe('tail', () => {
  async function tail(count: number): Promise<string> {
    const handle = await open(file);
    try {
      const offset = await tailOffset(handle, count);
      return (await handle.readFile()).subarray(offset).toString();
    } finally {
      await handle.close();
    }
  }

  it('counts lines of output, not their parts', async () => {
    const lines = [line(1, 'one'), line(2, 'tw', 'P'), line(3, 'o'), line(4, 'three')];
    await writeFile(file, lines.join(''));
    expect(await tail(0)).toBe('');
    expect(await tail(1)).toBe(lines.slice(3).join(''));
    expect(await tail(2)).toBe(lines.slice(1).join(''));
    expect(await tail(3)).toBe(lines.join(''));
    expect(await tail(99)).toBe(lines.join(''));
  });

  it('works across blocks, at every boundary', async () => {
    const lines = Array.from({ length: 3000 }, (_, i) => line(i % 60, `${i} ${'x'.repeat(i % 97)}`));
    await writeFile(file, lines.join(''));
    for (const count of [1, 500, 1500, 2999, 3000])
      expect(await tail(count)).toBe(lines.slice(-count).join(''));
  });

  it('is nothing in an empty file', async () => {
    await writeFile(file, '');
    expect(await tail(5)).toBe('');
  });
});

describe('reading', () => {
  it('ends at the end, and leaves out what is too old or no log line', async () => {
    await writeFile(file, `${line(1, 'old')}garbage\n${line(5, 'new')}${at(6)} stdout F unfinished`);
    expect(await texts(readLog(file, { signal: never }))).toEqual(['old', 'new']);
    expect(await texts(readLog(file, { signal: never, since: 1_769_860_802_000_000_000n }))).toEqual(['new']);
    await expect(texts(readLog(`${file}.no`, { signal: never }))).rejects.toMatchObject({ code: 'ENOENT' });
  });

  it('reads lines that are longer than its buffer', async () => {
    const long = 'y'.repeat(200_000);
    await writeFile(file, line(1, long) + line(2, 'z'));
    expect(await texts(readLog(file, { signal: never }))).toEqual([long, 'z']);
  });

  /** Reads on, doing one step after each entry; the log has ended when there are no steps left. */
  async function follow(
    steps: (() => Promise<unknown>)[],
    options: { tail?: number } = {},
  ): Promise<string[]> {
    const seen: string[] = [];
    const ended = async () => {
      await steps.shift()?.();
      return steps.length === 0;
    };
    for await (const { text } of readLog(file, { ...options, ended, signal: never }))
      seen.push(text.toString());
    return seen;
  }

  it('follows what is added, also to a half-written line, and reads to the end when the writer has ended', async () => {
    await writeFile(file, line(1, 'a'));
    const half = line(2, 'bc');
    expect(
      await follow([
        () => appendFile(file, half.slice(0, 40)),
        () => appendFile(file, half.slice(40)),
        () => appendFile(file, line(3, 'last')),
      ]),
    ).toEqual(['a', 'bc', 'last']);
  });

  it('loses nothing when the file is rotated', async () => {
    await writeFile(file, line(1, 'a'));
    expect(
      await follow([
        async () => {
          await rename(file, `${file}.1`);
          await appendFile(`${file}.1`, line(2, 'after rename'));
        },
        async () => {
          await appendFile(`${file}.1`, line(3, 'before reopen'));
          await writeFile(file, line(4, 'new file'));
        },
        async () => {
          await rename(file, `${file}.2`);
          await appendFile(`${file}.2`, line(5, 'second'));
          await writeFile(file, line(6, 'third'));
        },
      ]),
    ).toEqual(['a', 'after rename', 'before reopen', 'new file', 'second', 'third']);
  });

  it('starts anew when the file is cut', async () => {
    await writeFile(file, line(1, 'a long line'));
    const cut = async () => {
      await truncate(file, 0);
      await appendFile(file, line(2, 'b'));
    };
    expect(await follow([cut, async () => {}])).toEqual(['a long line', 'b']);
  });

  it('waits for a file that is still to come', async () => {
    expect(await follow([() => writeFile(file, line(1, 'a')), async () => {}], { tail: 1 })).toEqual(['a']);
  });

  it('ends when it is interrupted', async () => {
    await writeFile(file, line(1, 'a'));
    const controller = new AbortController();
    const ended = async () => {
      controller.abort();
      return false;
    };
    expect(await texts(readLog(file, { ended, signal: controller.signal }))).toEqual(['a']);
  });
});

it('prints parts as one line, each stream on its own', async () => {
  await writeFile(
    file,
    line(1, 'on', 'P') + line(1, 'err', 'F', 'stderr') + line(2, 'e') + line(3, '') + line(4, 'two'),
  );
  const out = { stdout: '', stderr: '' };
  const stream = (name: 'stdout' | 'stderr') =>
    new (class {
      write(data: Buffer): boolean {
        out[name] += data.toString();
        return true;
      }
    })() as unknown as NodeJS.WritableStream;
  await printLog(readLog(file, { signal: never }), {
    stdout: stream('stdout'),
    stderr: stream('stderr'),
    timestamps: true,
    prefix: 'c: ',
  });
  expect(out).toEqual({
    stdout: `c: ${at(1)} one\nc: ${at(3)} \nc: ${at(4)} two\n`,
    stderr: `c: ${at(1)} err\n`,
  });
});
