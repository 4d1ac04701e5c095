import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { IDLE, refusal, SHARED_PID, sh, until } from '../pods.ts';
import { openSpdy } from '../remote-command.ts';
import type { Suite } from './suite.ts';

/** What is left when berthd, containers and pods end. */
export function describeEnds(suite: Suite): void {
  const logged = async (id: string) => {
    const { pods } = suite;
    return (await pods.log((await pods.status(id)).log_path)).map(({ text }) => text);
  };

  describe('when berthd was killed', () => {
    it('its successor knows all, the ends meanwhile too, and everything goes on', async () => {
      const { pods, pod, berthd } = suite;
      const writer = await pods.start(pod, sh('n=0; while sleep 0.1; do n=$((n+1)); echo $n; done'));
      const echo = await pods.start(pod, sh('read l; echo "got $l"', { stdin: true }));
      const mounts = [{ host_path: berthd.dir, container_path: '/flags', readonly: true }];
      const wait = 'until [ -e /flags/flag ]; do sleep 0.05; done';
      const ends = [
        await pods.start(pod, sh(`${wait}; echo last words; printf "no end"; exit 7`, { mounts })),
        await pods.start(pod, sh(`${wait}; exit 0`, { mounts })),
      ];
      await until('it writes', async () => (await logged(writer)).length > 0);
      const before = await pods.everything();
      await berthd.stop('SIGKILL');
      await writeFile(path.join(berthd.dir, 'flag'), '');
      await berthd.start();
      const [seven, zero] = await Promise.all(ends.map((id) => pods.ended(id)));
      expect(seven).toMatchObject({ exit_code: 7, reason: 'Error' });
      expect(zero).toMatchObject({ exit_code: 0, reason: 'Completed' });
      expect(await logged(ends[0] ?? '')).toEqual(['last words', 'no end']);
      const after = await pods.everything();
      expect(after.podStatuses).toEqual(before.podStatuses);
      const others = ({ statuses }: typeof after) => statuses.filter(({ id }) => !ends.includes(id));
      expect(others(after)).toEqual(others(before));
      expect(await pods.ask(writer, 'echo in it')).toBe('in it');
      const lines = (await logged(writer)).length;
      await until('the log goes on', async () => (await logged(writer)).length > lines + 3);
      // Nothing that was written meanwhile is missing, and nothing is there twice.
      const all = await logged(writer);
      expect(all).toEqual(all.map((_, i) => String(i + 1)));
      const wanted = { stdin: true, stdout: true };
      const { url } = await berthd.client.runtime('Attach', { container_id: echo, ...wanted });
      const client = await openSpdy(url, wanted);
      client.send('after\n');
      expect((await client.end()).stdout).toBe('got after\n');
    });
  });

  describe('the end of a pod', () => {
    it('StopPodSandbox ends its containers, keeps its record, and can be repeated', async () => {
      const { pods } = suite;
      const pod = await suite.second();
      const shared = { linux: { security_context: SHARED_PID } };
      const id = await pods.start(pod, { ...IDLE, ...shared });
      const created = await pods.create(pod, { ...IDLE, ...shared });
      const before = await pods.podStatus(pod);
      await Promise.all([pods.stopPod(pod), pods.stopPod(pod), pods.stop(id, 600)]);
      await pods.stopPod(pod);
      expect(await pods.podStatus(pod)).toEqual({ ...before, state: 'SANDBOX_NOTREADY' });
      expect(await pods.status(id)).toMatchObject({
        state: 'CONTAINER_EXITED',
        exit_code: 137,
        reason: 'Error',
      });
      expect((await pods.status(created)).state).toBe('CONTAINER_EXITED');
      expect((await refusal(pods.create(pod))).kind).toBe('precondition');
    });

    it('RemovePodSandbox ends a running pod, leaves nothing, and again says nothing', async () => {
      const { pods, pod, berthd, one } = suite;
      await Promise.all([
        pods.removePod(pod),
        pods.stopPod(pod),
        pods.removePod(pod),
        pods.removeContainer(one),
      ]);
      await pods.removePod(pod);
      await pods.stopPod(pod);
      expect((await refusal(pods.podStatus(pod))).kind).toBe('notFound');
      expect((await refusal(pods.status(one))).kind).toBe('notFound');
      expect(await berthd.removeAllPods()).toEqual([]);
    });
  });
}
