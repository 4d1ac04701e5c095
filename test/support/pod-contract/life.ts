import { describe, expect, it } from 'vitest';
import type { ContainerConfig } from '../../../proto/gen/runtime/v1/ContainerConfig.ts';
import { listenTo, words } from '../events.ts';
import { IDLE, refusal, SHARED_PID, sh, until } from '../pods.ts';
import { FULL_IMAGE, type Suite } from './suite.ts';

/** Runs until told to end, and then tells how it was told. */
const trapping = (signal: string, code: number, more: ContainerConfig = {}) =>
  sh(`trap 'echo caught; exit ${code}' ${signal}; echo ready; while :; do sleep 0.05; done`, more);
const DEAF = { state: 'CONTAINER_EXITED', exit_code: 137, reason: 'Error' };

/** How containers end, are stopped and are removed. */
export function describeLife(suite: Suite): void {
  const logged = async (id: string) => {
    const { pods } = suite;
    return (await pods.log((await pods.status(id)).log_path)).map(({ text }) => text);
  };
  const ready = async (config: ContainerConfig) => {
    const id = await suite.pods.start(suite.pod, config);
    await until('the container is ready', async () => (await logged(id)).includes('ready'));
    return id;
  };

  describe('the end of a container', () => {
    it('is its code: 0 Completed, any other Error, a signal 128 and its number; all is told as an event', async () => {
      const { pods, pod, berthd } = suite;
      const { heard, read, leave } = await listenTo(berthd);
      read();
      for (const [script, exit_code, reason] of [
        ['echo out; sleep 0.1; exit 0', 0, 'Completed'],
        ['echo out; sleep 0.1; exit 255', 255, 'Error'],
      ] as const) {
        const before = BigInt(Date.now()) * 1_000_000n;
        const said = await pods.runToEnd(pod, sh(script));
        expect(said).toMatchObject({ exit_code, reason, message: '' });
        expect(said.log).toMatch(/^out\n/);
        const [created = 0n, started = 0n, finished = 0n] = [
          said.created_at,
          said.started_at,
          said.finished_at,
        ].map(BigInt);
        expect(created).toBeGreaterThanOrEqual(before);
        expect(started).toBeGreaterThan(created);
        expect(finished - started).toBeGreaterThan(90_000_000n);
        expect(finished).toBeLessThanOrEqual(BigInt(Date.now() + 1) * 1_000_000n);
        await pods.removeContainer(said.id);
        const mine = () => heard.filter(({ container_id }) => container_id === said.id);
        await until('all is told', () => mine().length === 4);
        expect(words(mine())).toEqual(
          ['created', 'started', 'stopped', 'deleted'].map((what) => `${said.id} ${what}`),
        );
        const { containers_statuses, pod_sandbox_status } = mine()[2] ?? {};
        expect(containers_statuses?.find(({ id }) => id === said.id)).toMatchObject({ exit_code, reason });
        expect(pod_sandbox_status).toMatchObject({ id: pod.id, state: 'SANDBOX_READY' });
      }
      leave();
      // The first process of a PID namespace is not killed by a signal of its own.
      const killed = sh('kill -SEGV $$', { linux: { security_context: SHARED_PID } });
      expect(await pods.runToEnd(await suite.second(), killed)).toMatchObject({
        exit_code: 139,
        reason: 'Error',
      });
    });

    it('for want of memory is OOMKilled with 137, but not for a child’s that it survives', async () => {
      const { pods, pod } = suite;
      const linux = { resources: { memory_limit_in_bytes: 24 << 20, memory_swap_limit_in_bytes: 24 << 20 } };
      const hungry = { command: ['tail', '/dev/zero'], linux };
      expect(await pods.runToEnd(pod, hungry)).toMatchObject({ exit_code: 137, reason: 'OOMKilled' });
      const patient = sh('tail /dev/zero; echo "code $?"; exit 0', { linux });
      expect(await pods.runToEnd(pod, patient)).toMatchObject({
        exit_code: 0,
        reason: 'Completed',
        log: expect.stringContaining('code 137\n'),
      });
    });

    it('before it began is StartError with 128 and a message that names the command', async () => {
      const { pods, pod, berthd } = suite;
      const cases: [ContainerConfig, RegExp][] = [
        [{ command: ['no-such-command', 'x'] }, /no-such-command/],
        [{ command: ['sh'], working_dir: '/etc/passwd' }, /\/etc\/passwd/],
      ];
      for (const [config, message] of cases) {
        const container_id = await pods.create(pod, config);
        const said = await refusal(berthd.client.runtime('StartContainer', { container_id }));
        expect(said.message).toMatch(message);
        const status = await pods.status(container_id);
        expect(status).toMatchObject({ state: 'CONTAINER_EXITED', exit_code: 128, reason: 'StartError' });
        expect(status.message).toMatch(message);
        await pods.removeContainer(container_id);
      }
    });
  });

  describe('StopContainer', () => {
    it('lets a container that listens to its signal end by itself', async () => {
      const { pods } = suite;
      const image = { image: { image: FULL_IMAGE } };
      for (const [config, code] of [
        [trapping('TERM', 7), 7],
        // The image's.
        [trapping('USR1', 11, image), 11],
      ] as const) {
        const id = await ready(config);
        await pods.stop(id, 30);
        expect(await pods.status(id)).toMatchObject({
          state: 'CONTAINER_EXITED',
          exit_code: code,
          reason: 'Error',
        });
        expect(await logged(id)).toEqual(['ready', 'caught']);
        await pods.stop(id, 30);
      }
    });

    it('kills at the end of grace one that does not, without grace at once, with all its children', async () => {
      const { pods, pod } = suite;
      const [deaf, killed] = [await pods.start(pod), await ready(trapping('TERM', 7))];
      await pods.ask(killed, 'sleep 100000 >/dev/null 2>&1 &');
      const began = performance.now();
      // The one that waits holds up neither the other nor questions.
      const patient = pods.stop(deaf, 600);
      await pods.stop(killed, 0);
      expect(await pods.status(killed)).toMatchObject(DEAF);
      expect(await logged(killed)).toEqual(['ready']);
      expect((await pods.status(deaf)).state).toBe('CONTAINER_RUNNING');
      // A later call may be more urgent.
      await Promise.all([patient, pods.stop(deaf, 1)]);
      expect(performance.now() - began).toBeGreaterThan(950);
      expect(await pods.status(deaf)).toMatchObject(DEAF);
    });

    it('ends one that was never started, and of an absent one is done', async () => {
      const { pods, pod } = suite;
      const id = await pods.create(pod);
      await pods.stop(id, 30);
      expect((await pods.status(id)).state).toBe('CONTAINER_EXITED');
      await pods.stop('f'.repeat(64), 0);
    });
  });

  describe('RemoveContainer', () => {
    it('ends a running container and frees its name, and again says nothing', async () => {
      const { pods, pod } = suite;
      const config = { ...IDLE, metadata: { name: 'same', attempt: 0 } };
      const id = await pods.start(pod, config);
      await Promise.all([pods.removeContainer(id), pods.stop(id, 0), pods.removeContainer(id)]);
      expect((await refusal(pods.status(id))).kind).toBe('notFound');
      const again = await pods.start(pod, config);
      expect(again).not.toBe(id);
      await pods.removeContainer(again);
    });
  });
}
