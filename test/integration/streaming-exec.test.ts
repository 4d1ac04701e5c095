import { readFileSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { Berthd } from '../support/berthd.ts';
import { Pods, refusal, runs, until } from '../support/pods.ts';

let berthd: Berthd;
let pods: Pods;

beforeAll(async () => {
  berthd = await Berthd.start();
  await berthd.importBusybox();
  pods = new Pods(berthd);
});
afterEach(async () => expect(await berthd.removeAllPods()).toEqual([]));
afterAll(async () => expect(await berthd.close()).toEqual([]));

/** Children of the daemon that have ended and that nobody has reaped. */
async function zombies(): Promise<number[]> {
  const found: number[] = [];
  for (const task of await readdir(`/proc/${berthd.pid}/task`)) {
    const children = readFileSync(`/proc/${berthd.pid}/task/${task}/children`, 'utf8').trim().split(' ');
    found.push(...children.filter((pid) => pid !== '' && !runs(Number(pid))).map(Number));
  }
  return found;
}

/** Open descriptors of the daemon. */
const descriptors = async () => (await readdir(`/proc/${berthd.pid}/fd`)).length;

describe('ExecSync', () => {
  it('does not wait for a child in the background that holds the output open', async () => {
    const container = await pods.start(await pods.run());
    const began = performance.now();
    const said = await pods.exec(container, ['sh', '-c', 'sleep 5 & echo out; exit 7']);
    expect(said).toEqual({ code: 7, stdout: 'out\n', stderr: '' });
    expect(performance.now() - began).toBeLessThan(4000);
  });

  it('gives commands pipes that they can open by name, as any user', async () => {
    const container = await pods.start(await pods.run());
    const said = await pods.exec(container, ['sh', '-c', 'echo a >/dev/stdout; echo b >/dev/stderr']);
    expect(said).toEqual({ code: 0, stdout: 'a\n', stderr: 'b\n' });
  });

  it('answers 128 and the signal’s number for a command that a signal ended', async () => {
    const container = await pods.start(await pods.run());
    expect((await pods.exec(container, ['sh', '-c', 'kill -9 $$'])).code).toBe(137);
    expect((await pods.exec(container, ['sh', '-c', 'kill -15 $$'])).code).toBe(143);
    expect((await pods.exec(container, ['sh', '-c', 'exit 255'])).code).toBe(255);
  });

  it('kills the whole process group at the deadline', async () => {
    const container = await pods.start(await pods.run());
    const call = pods.exec(container, ['sh', '-c', 'sleep 54321 & sleep 54321'], 1);
    expect(await refusal(call)).toMatchObject({ kind: 'deadline' });
    await until('no sleep is left', async () => !(await pods.ask(container, 'ps')).includes('54321'));
  });

  it('says which command cannot be started, and leaves no process or descriptor after many such', async () => {
    const container = await pods.start(await pods.run());
    await refusal(pods.exec(container, ['no-such-command']));
    const before = await descriptors();
    for (let i = 0; i < 20; i++) {
      const { kind, message } = await refusal(pods.exec(container, ['no-such-command']));
      expect([kind, message]).toEqual(['internal', expect.stringContaining('no-such-command')]);
    }
    await until('descriptors are closed', async () => (await descriptors()) <= before);
    expect(await readdir(`${berthd.dir}/state/exec`)).toEqual([]);
    await until('no zombie is left', async () => (await zombies()).length === 0);
  });
});
