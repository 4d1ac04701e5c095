import { mkdtemp, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Paths } from '../../../src/paths.ts';
import { RuntimeCreateError } from '../../../src/runtime/handler.ts';
import { type ConmonOptions, conmonArgs, parseSync, readExit } from '../../../src/runtime/oci/conmon.ts';
import { OciRuntime, readPidFile, runtimeMessage, tryReadPidFile } from '../../../src/runtime/oci/runtime.ts';

const runtime = (systemdCgroup = false) =>
  new OciRuntime({ path: '/usr/sbin/runc', root: '/s/runtimes/runc', systemdCgroup });

const paths = new Paths('/r', '/s').container('c1');

const options = (over: Partial<ConmonOptions> = {}): ConmonOptions => ({
  conmon: '/usr/bin/conmon',
  runtime: runtime(),
  id: 'c1',
  name: 'web; rm -rf /',
  paths,
  exitsDir: '/s/exits',
  logPath: '/var/log/pods/a b/0.log',
  tty: false,
  stdin: false,
  stdinOnce: false,
  ...over,
});

describe('conmonArgs', () => {
  it('is this command line', () => {
    expect(conmonArgs(options())).toEqual([
      '--api-version',
      '1',
      '--cid',
      'c1',
      '--cuuid',
      'c1',
      '--name',
      'web; rm -rf /',
      '--bundle',
      '/s/containers/c1',
      '--full-attach',
      '--exit-dir',
      '/s/exits',
      '--persist-dir',
      '/s/containers/c1',
      '--container-pidfile',
      '/s/containers/c1/pidfile',
      '--conmon-pidfile',
      '/s/containers/c1/conmon.pid',
      '--log-path',
      'k8s-file:/var/log/pods/a b/0.log',
      '--log-level',
      'error',
      '--runtime',
      '/usr/sbin/runc',
      '--runtime-arg=--root',
      '--runtime-arg=/s/runtimes/runc',
      '--runtime-arg=--log',
      '--runtime-arg=/s/containers/c1/runtime.log',
    ]);
  });

  it.each<[string, Partial<ConmonOptions>, string[]]>([
    ['the systemd driver', { runtime: runtime(true) }, ['--runtime-arg=--systemd-cgroup']],
    ['a terminal', { tty: true }, ['--terminal']],
    ['input', { stdin: true }, ['--stdin', '--leave-stdin-open']],
    ['input for one client', { stdin: true, stdinOnce: true }, ['--stdin']],
    ['a terminal with input', { tty: true, stdin: true }, ['--terminal', '--stdin', '--leave-stdin-open']],
    ['stdinOnce without input', { stdinOnce: true }, []],
  ])('adds for %s', (_name, over, added) => {
    expect(conmonArgs(options(over))).toEqual([...conmonArgs(options()), ...added]);
  });
});

describe('parseSync', () => {
  it.each([
    ['{"data": 1234}\n', 1234],
    ['{"data":2}', 2],
    ['{"pid":9,"data":4194304,"message":"x"}', 4_194_304],
  ])('%j is pid %i', (line, pid) => {
    expect(parseSync(line)).toBe(pid);
  });

  it.each([
    // As runc's text log comes through conmon.
    [
      { data: -1, message: 'time="2030-01-01T00:00:00Z" level=error msg="runc create failed: no \\"x\\""\n' },
      'runc create failed: no "x"',
    ],
    [{ data: -1, message: 'plain words\n' }, 'plain words'],
    [{ data: -100 }, 'the OCI runtime failed without a message'],
    [{ data: -1, message: '' }, 'the OCI runtime failed without a message'],
    [{ data: -1, message: 7 }, 'the OCI runtime failed without a message'],
    // 0 and 1 are no container's init.
    [{ data: 0, message: 'zero' }, 'zero'],
    [{ data: 1, message: 'one' }, 'one'],
  ])('%j is a refusal', (answer, message) => {
    const parse = () => parseSync(`${JSON.stringify(answer)}\n`);
    expect(parse).toThrow(RuntimeCreateError);
    expect(parse).toThrow(expect.objectContaining({ kind: 'internal', message }));
  });

  it.each([
    '{"data": 12',
    'conmon: oops',
    'null',
    '7',
    '[]',
    '{}',
    '{"data":1.5}',
    '{"data":"7"}',
    `x${'y'.repeat(5000)}`,
  ])('%j is no answer, which is not the OCI runtime’s fault', (line) => {
    let thrown: unknown;
    try {
      parseSync(line);
    } catch (e: unknown) {
      thrown = e;
    }
    expect(thrown).toMatchObject({
      kind: 'internal',
      message: expect.stringMatching(/^conmon answered "/),
    });
    expect(thrown).not.toBeInstanceOf(RuntimeCreateError);
    expect((thrown as Error).message.length).toBeLessThan(300);
  });
});

describe('runtimeMessage', () => {
  it.each([
    ['', ''],
    ['\n \n', ''],
    ['container with id exists: c1\n', 'container with id exists: c1'],
    ['first\nlast\n', 'last'],
    ['time="x" level=error msg="a \\"b\\" \\t c"', 'a "b" \t c'],
    ['time="x" level=warning msg="w"\ntime="x" level=error msg="e"\ntime="x" level=info msg="i"', 'e'],
    ['time="x" level=fatal msg="f"\nmore', 'f'],
    ['time="x" level=error msg=bare', 'time="x" level=error msg=bare'],
    // An escape that JSON lacks: better with its quotes than not at all.
    ['level=error msg="a\\x41"', '"a\\x41"'],
  ])('%j means %j', (stderr, message) => {
    expect(runtimeMessage(stderr)).toBe(message);
  });
});

describe('files of a monitor', () => {
  let dir: string;
  beforeAll(async () => {
    dir = await mkdtemp(path.join(tmpdir(), 'berth-conmon-'));
  });
  afterAll(() => rm(dir, { recursive: true }));
  const file = async (content: string) => {
    const name = path.join(dir, 'f');
    await writeFile(name, content);
    return name;
  };

  it.each([
    ['0', 0],
    ['137\n', 137],
    ['-1', -1],
  ])('an exit file %j says %i, with its time in nanoseconds', async (content, code) => {
    const name = await file(content);
    await utimes(name, 1_700_000_000.5, 1_700_000_000.5);
    expect(await readExit(name)).toEqual({ code, finishedAt: (await stat(name, { bigint: true })).mtimeNs });
    expect((await readExit(name))?.finishedAt).toBe(1_700_000_000_500_000_000n);
  });

  it.each(['', ' \n', 'x', '1.5', '1 2'])('an exit file %j says nothing', async (content) => {
    expect(await readExit(await file(content))).toBeUndefined();
  });

  it('an absent exit file says nothing, an unreadable one is an error', async () => {
    expect(await readExit(path.join(dir, 'none'))).toBeUndefined();
    await expect(readExit(dir)).rejects.toMatchObject({ code: 'EISDIR' });
  });

  it.each(['1234', '1234\n'])('a pid file %j names 1234', async (content) => {
    expect(readPidFile(await file(content))).toBe(1234);
  });

  // Signals to 0, 1 and negative numbers would go to more than a container.
  it.each(['', '0', '1', '-5', '1.5', 'x', '99999999999999999999'])(
    'a pid file %j is refused',
    async (content) => {
      const pidFile = await file(content);
      expect(() => readPidFile(pidFile)).toThrow(
        expect.objectContaining({ kind: 'internal', message: expect.stringMatching(/: not a pid: /) }),
      );
      expect(tryReadPidFile(pidFile)).toBeUndefined();
    },
  );
});

describe('OciRuntime', () => {
  it('puts its own arguments before every verb', () => {
    expect(runtime().globalArgs()).toEqual(['--root', '/s/runtimes/runc']);
    expect(runtime(true).globalArgs('/log')).toEqual([
      '--root',
      '/s/runtimes/runc',
      '--log',
      '/log',
      '--systemd-cgroup',
    ]);
  });
});
