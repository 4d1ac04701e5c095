import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { Berthd } from '../support/berthd.ts';
import { IDLE, type LogLine, type Pod, Pods, parseLog, refusal, sh, until } from '../support/pods.ts';

let berthd: Berthd;
let pods: Pods;

beforeAll(async () => {
  berthd = await Berthd.start();
  await berthd.importBusybox();
  pods = new Pods(berthd);
});
afterEach(async () => expect(await berthd.removeAllPods()).toEqual([]));
afterAll(async () => expect(await berthd.close()).toEqual([]));

/** Runs a script to its end; its log's lines and bytes. */
async function logOf(pod: Pod, script: string, more = {}): Promise<{ lines: LogLine[]; bytes: Buffer }> {
  const { log_path } = await pods.runToEnd(pod, sh(script, more));
  const bytes = await readFile(log_path);
  return { lines: parseLog(bytes), bytes };
}

const reopen = (container_id: string) => berthd.client.runtime('ReopenContainerLog', { container_id });

describe('the log', () => {
  it('has a time in nanoseconds, stream, tag and text in every line', async () => {
    const before = Date.now();
    const { lines, bytes } = await logOf(
      await pods.run(),
      'echo one; echo two >&2; sleep 1; echo; echo "  a b "',
    );
    // Which of two streams comes first is the monitor's to say.
    expect(lines.map(({ stream, tag, text }) => [stream, tag, text]).sort()).toEqual([
      ['stderr', 'F', 'two'],
      ['stdout', 'F', ''],
      ['stdout', 'F', '  a b '],
      ['stdout', 'F', 'one'],
    ]);
    expect(bytes.toString()).toMatch(
      /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}(Z|[+-]\d\d:\d\d) std(out|err) F [^\n]*\n){4}$/,
    );
    const times = lines.map(({ time }) => Date.parse(time));
    expect(times).toEqual([...times].sort((a, b) => a - b));
    expect(times[0]).toBeGreaterThanOrEqual(before);
    expect((times[2] ?? 0) - (times[0] ?? 0)).toBeGreaterThanOrEqual(400);
    expect(times[3]).toBeLessThanOrEqual(Date.now());
  });

  it('is where sandbox and container say, in directories made for it, and stays when the container goes', async () => {
    const log_directory = path.join(berthd.dir, 'some', 'where');
    const pod = await pods.run({ log_directory });
    const { id, log_path } = await pods.runToEnd(pod, sh('echo kept', { log_path: 'deep/er/0.log' }));
    expect(log_path).toBe(path.join(log_directory, 'deep/er/0.log'));
    await pods.removeContainer(id);
    await pods.removePod(pod);
    expect((await pods.log(log_path)).map(({ text }) => text)).toEqual(['kept']);
    // A restarted container goes on in its file, as the kubelet expects of a name used again.
    const again = await pods.runToEnd(
      await pods.run({ log_directory }),
      sh('echo more', { log_path: 'deep/er/0.log' }),
    );
    expect((await pods.log(again.log_path)).map(({ text }) => text)).toEqual(['kept', 'more']);
  });

  it.each([
    ['the container names no file', {}, { log_path: '' }],
    ['the sandbox names no directory', { log_directory: '' }, { log_path: 'x.log' }],
  ])('is berth’s own and goes with the container when %s', async (_name, sandbox, container) => {
    const pod = await pods.run(sandbox);
    const { id, log_path } = await pods.runToEnd(pod, sh('echo said', container));
    // Of an empty path the kubelet would make a glob of its own directory.
    expect(log_path.startsWith(`${berthd.dir}/`)).toBe(true);
    expect((await pods.log(log_path)).map(({ text }) => text)).toEqual(['said']);
    await pods.removeContainer(id);
    expect(existsSync(log_path)).toBe(false);
  });

  it('that cannot be written keeps the container from being created, and nothing is left', async () => {
    const pod = await pods.run();
    await mkdir(path.join(pod.config.log_directory ?? '', 'taken.log'), { recursive: true });
    const refused = await refusal(pods.create(pod, { ...IDLE, log_path: 'taken.log' }));
    expect(refused.message).toMatch(/taken\.log|[Ll]og/);
    expect((await berthd.client.runtime('ListContainers', {})).containers).toEqual([]);
    expect(await readdir(path.join(berthd.dir, 'state/containers'))).toEqual([]);
  });
});

describe('ReopenContainerLog', () => {
  it('makes a file that was removed, takes several calls at once, and works while the container is stopped', async () => {
    const pod = await pods.run();
    const id = await pods.start(pod, sh('trap "echo caught" TERM; while :; do sleep 0.05; done'));
    const { log_path } = await pods.status(id);
    await rm(log_path);
    await reopen(id);
    expect((await stat(log_path)).size).toBe(0);
    await rename(log_path, `${log_path}.1`);
    await Promise.all([reopen(id), reopen(id), reopen(id)]);
    expect(existsSync(log_path)).toBe(true);
    const stopping = pods.stop(id, 600);
    await until('the signal has come', async () => (await pods.log(log_path)).length > 0);
    await rename(log_path, `${log_path}.2`);
    await reopen(id);
    expect(existsSync(log_path)).toBe(true);
    await Promise.all([stopping, pods.stop(id, 0)]);
    expect((await pods.log(`${log_path}.2`)).map(({ text }) => text)).toEqual(['caught']);
    expect((await readdir(path.dirname(log_path))).filter((name) => name.endsWith('.tmp'))).toEqual([]);
  });

  it('of a log that nobody has moved keeps what is in it', async () => {
    const pod = await pods.run();
    const id = await pods.start(pod, sh('echo before; until test -e /go; do sleep 0.05; done; echo after'));
    const { log_path } = await pods.status(id);
    await until('it has spoken', async () => (await pods.log(log_path)).length > 0);
    await reopen(id);
    await pods.exec(id, ['touch', '/go']);
    await pods.ended(id);
    expect((await pods.log(log_path)).map(({ text }) => text)).toEqual(['before', 'after']);
  });

  it('works after a restart of the daemon', async () => {
    const pod = await pods.run();
    const id = await pods.start(pod, sh('echo before; until test -e /go; do sleep 0.05; done; echo after'));
    const { log_path } = await pods.status(id);
    await until('it has spoken', async () => (await pods.log(log_path)).length > 0);
    await berthd.stop('SIGKILL');
    await rename(log_path, `${log_path}.1`);
    await berthd.start();
    await reopen(id);
    await pods.exec(id, ['touch', '/go']);
    await pods.ended(id);
    expect((await pods.log(`${log_path}.1`)).map(({ text }) => text)).toEqual(['before']);
    expect((await pods.log(log_path)).map(({ text }) => text)).toEqual(['after']);
  });

  it('is refused for a container that does not run', async () => {
    const pod = await pods.run();
    const created = await pods.create(pod);
    expect((await refusal(reopen(created))).kind).toBe('precondition');
    const { id } = await pods.runToEnd(pod, sh('exit 0'));
    expect((await refusal(reopen(id))).kind).toBe('precondition');
    expect((await refusal(reopen('f'.repeat(64)))).kind).toBe('notFound');
  });
});
