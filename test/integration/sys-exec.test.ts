import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { type RunOptions, run, runOk } from '../../src/sys/exec.ts';
import { readProcessStat } from '../../src/sys/process-identity.ts';
import { eventually } from '../support/eventually.ts';

const options: RunOptions = { timeoutMs: 10_000, maxOutput: 1024 * 1024 };
const sh = (script: string, more: Partial<RunOptions> = {}) =>
  run(['sh', '-c', script], { ...options, ...more });

/** Ended: gone, or a zombie that its new parent has not reaped yet. */
const ended = (pid: number) => ['Z', 'X', undefined].includes(readProcessStat(pid)?.state);

afterEach(() => vi.unstubAllEnvs());

describe('run', () => {
  it('answers code, signal, output and hands on input and environment', async () => {
    const result = await sh('cat; echo "$A" >&2; exit 3', {
      input: 'in',
      env: { A: 'b', PATH: process.env.PATH },
    });
    expect({ ...result, stdout: String(result.stdout), stderr: String(result.stderr) }).toEqual({
      code: 3,
      signal: null,
      stdout: 'in',
      stderr: 'b\n',
    });
    expect(await sh('kill -TERM $$')).toMatchObject({ code: null, signal: 'SIGTERM' });
  });

  it('takes all of a megabyte of output, and a program that does not read its input', async () => {
    const input = Buffer.alloc(1024 * 1024, 'x');
    expect((await sh('cat', { input })).stdout).toHaveLength(input.length);
    expect(await sh('exec 0<&-; echo done', { input })).toMatchObject({ code: 0 });
  });

  it('keeps the service manager’s variables to itself', async () => {
    vi.stubEnv('NOTIFY_SOCKET', '/run/x');
    vi.stubEnv('BERTH_TEST', 'y');
    expect(String((await sh('echo "$NOTIFY_SOCKET$BERTH_TEST"')).stdout)).toBe('y\n');
  });

  it('kills the whole group at the deadline', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'berth-exec-'));
    try {
      const pidFile = join(dir, 'pid');
      const hanging = sh(`sleep 60 & echo $! > ${pidFile}; wait`, { timeoutMs: 1500 });
      await expect(hanging).rejects.toMatchObject({
        kind: 'deadline',
        message: 'sh: did not end within 1500 ms',
      });
      await eventually(() => expect(ended(Number(readFileSync(pidFile, 'utf8')))).toBe(true));
    } finally {
      rmSync(dir, { recursive: true });
    }
  });

  it('kills when aborted, and starts nothing when that was before', async () => {
    const controller = new AbortController();
    const running = sh('echo $$; sleep 60', { signal: controller.signal });
    controller.abort(new Error('the caller left'));
    await expect(running).rejects.toThrow('the caller left');
    await expect(sh('true', { signal: controller.signal })).rejects.toThrow('the caller left');
  });

  it('kills a program that says too much, and keeps only the end of its stderr', async () => {
    await expect(sh('exec cat /dev/zero', { maxOutput: 1000 })).rejects.toMatchObject({ kind: 'exhausted' });
    const { stderr } = await sh('head -c 100000 /dev/zero >&2; echo last >&2', { maxOutput: 1000 });
    expect(stderr).toHaveLength(1000);
    expect(String(stderr.subarray(-5))).toBe('last\n');
  });

  it('does not wait for a grandchild that keeps the pipes', async () => {
    const { stdout } = await sh('sleep 60 & echo $!');
    const pid = Number(stdout);
    expect(ended(pid)).toBe(false);
    process.kill(pid, 'SIGKILL');
  });

  it('survives a timeout longer than a timer can be', async () => {
    expect(await sh('sleep 0.1', { timeoutMs: 2 ** 40 })).toMatchObject({ code: 0 });
  });

  it('hands on descriptors', async () => {
    const fd = openSync('/etc/hostname', 'r');
    const { stdout } = await sh('cat <&3', { extraFds: [fd], stderr: 'ignore' });
    closeSync(fd);
    expect(stdout).toEqual(readFileSync('/etc/hostname'));
  });

  it('names a program that cannot be started', async () => {
    await expect(run(['/absent/program'], options)).rejects.toMatchObject({
      code: 'ENOENT',
      path: '/absent/program',
    });
  });
});

describe('runOk', () => {
  it('names program, code and the last line of stderr', async () => {
    const failing = runOk(['sh', '-c', 'echo one >&2; echo two >&2; exit 4'], options);
    await expect(failing).rejects.toMatchObject({ kind: 'internal', message: 'sh: exit code 4: two' });
    expect(String((await runOk(['echo', 'x'], options)).stdout)).toBe('x\n');
  });
});
