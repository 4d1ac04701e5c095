import {
  closeSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  rmSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { expect, it } from 'vitest';
import { type ChildStdio, spawnChild } from '../../src/sys/spawn.ts';

const env = { PATH: process.env.PATH, ONE: '1', absent: undefined };

/** Runs a shell script and answers what it wrote to descriptor 1, and how it ended. */
async function sh(script: string, more: { cwd?: string; stdio?: ChildStdio[] } = {}) {
  const child = spawnChild('sh', ['-c', script], { env, stdio: ['ignore', 'out', 'ignore'], ...more });
  const output = child.pipes[1] === undefined ? '' : await text(child.pipes[1]);
  return { output, ...(await child.exited), pid: child.pid };
}

it('starts a program in a session of its own, with that environment and directory', async () => {
  const cwd = realpathSync(mkdtempSync(join(tmpdir(), 'berth-spawn-')));
  try {
    const { output, code, pid } = await sh('echo $ONE-$absent; pwd; cut -d" " -f1,5,6 /proc/$$/stat', {
      cwd,
    });
    expect(output.split('\n')).toEqual(['1-', cwd, `${pid} ${pid} ${pid}`, '']);
    expect(code).toBe(0);
  } finally {
    rmSync(cwd, { recursive: true });
  }
});

it('tells a code from a signal', async () => {
  expect(await sh('exit 7')).toMatchObject({ code: 7, signal: null });
  expect(await sh('kill -TERM $$')).toMatchObject({ code: null, signal: 'SIGTERM' });
});

it('gives no signal ignored or blocked, though Node ignores SIGPIPE', async () => {
  const masks = (status: string) =>
    Object.fromEntries(
      [...status.matchAll(/^Sig(Ign|Blk):\s+(\w+)$/gm)].map(([, name, mask]) => [name, mask]),
    );
  expect(masks(readFileSync('/proc/self/status', 'utf8')).Ign).not.toBe('0'.repeat(16));
  const { output } = await sh('grep ^Sig /proc/$$/status');
  expect(masks(output)).toEqual({ Ign: '0'.repeat(16), Blk: '0'.repeat(16) });
});

it('writes to the input and closes it', async () => {
  const child = spawnChild('cat', [], { env, stdio: ['in', 'out', 'ignore'] });
  child.pipes[0]?.end('said');
  expect(child.pipes[1] && (await text(child.pipes[1]))).toBe('said');
  expect(await child.exited).toEqual({ code: 0, signal: null });
  expect(child.reaped).toBe(true);
});

it('hands on descriptors, low ones that other slots take too, and no others', async () => {
  const file = openSync('/proc/self/comm', 'r');
  const listed = 'cd /proc/$$/fd; for fd in *; do at=$(readlink $fd) && echo $fd $at; done';
  try {
    // Descriptor 1 of this process, where slot 1 is put before it.
    const own = readlinkSync('/proc/self/fd/1');
    const { output } = await sh(listed, { stdio: ['ignore', 'out', 'ignore', file, 1] });
    const fds = new Map(output.split('\n').map((line) => line.split(' ') as [string, string]));
    expect(fds.get('0')).toBe('/dev/null');
    expect(fds.get('3')).toMatch(/\/comm$/);
    expect(fds.get('4')).toBe(own);
    expect(fds.get(String(file)) ?? '').not.toMatch(/\/comm$/);
  } finally {
    closeSync(file);
  }
});

it('says why a program cannot be started, and leaves no descriptor open', () => {
  const before = fdCount();
  const stdio: ChildStdio[] = ['in', 'out', 1];
  expect(() => spawnChild('/nonexistent', [], { env, stdio })).toThrow(
    expect.objectContaining({ code: 'ENOENT', path: '/nonexistent' }),
  );
  expect(() => spawnChild('/etc/passwd', [], { env, stdio })).toThrow(
    expect.objectContaining({ code: 'EACCES' }),
  );
  expect(() => spawnChild('echo', ['a\0b'], { env, stdio })).toThrow(
    expect.objectContaining({ code: 'EINVAL' }),
  );
  expect(() => spawnChild('echo', [], { env, stdio, cwd: '/nonexistent' })).toThrow(
    expect.objectContaining({ code: 'ENOENT' }),
  );
  return expect.poll(fdCount).toBe(before);
});

function fdCount(): number {
  // One of them is the directory itself.
  return readdirSync('/proc/self/fd').length;
}

it('reaps many that end at the same time', async () => {
  const all = Array.from({ length: 30 }, (_, code) => sh(`exit ${code}`));
  expect((await Promise.all(all)).map(({ code }) => code)).toEqual(
    Array.from({ length: 30 }, (_, code) => code),
  );
});
