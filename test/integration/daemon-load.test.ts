import { existsSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm, rmdir, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { namespaceInode } from '../../src/sys/namespaces.ts';
import { Berthd } from '../support/berthd.ts';
import { FaultPlan } from '../support/faults.ts';
import { cgroupDirs } from '../support/host.ts';
import { leftovers } from '../support/leaks.ts';
import { inParallel, live, Mortal, ON_NODE, Random, zombiesOf } from '../support/load.ts';
import { IDLE, OWN_PID, type Pod, refusal, runs, sh, until } from '../support/pods.ts';

const PODS = 50;
/** With an address of its own; the others have the node's network, which is made faster. */
const WITH_ADDRESS = 12;
const WORKERS = 8;
const SEED = 20;

let dir: string;
let plan: FaultPlan;
let berthd: Berthd;
let mortal: Mortal;

beforeAll(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'berth-load-'));
  plan = new FaultPlan(dir);
  await plan.set([]);
  berthd = await Berthd.start({ env: plan.env, logLevel: 'info' });
  await berthd.importBusybox();
  mortal = new Mortal(berthd);
});
afterEach(async () => {
  await plan.set([]);
  expect(await removeAll()).toEqual([]);
});
afterAll(async () => {
  expect(await berthd.close()).toEqual([]);
  await rm(dir, { recursive: true });
});

/** Several at a time, as a node is drained. @returns what is left */
async function removeAll(): Promise<string[]> {
  const { items } = await berthd.client.runtime('ListPodSandbox', {});
  await inParallel(items.length, WORKERS, async (i) => {
    const pod_sandbox_id = items[i]?.id ?? '';
    await berthd.client.runtime('StopPodSandbox', { pod_sandbox_id });
    await berthd.client.runtime('RemovePodSandbox', { pod_sandbox_id });
  });
  await until('all children are reaped', () => zombiesOf(berthd.pid).length === 0, 30_000);
  return leftovers(berthd);
}

/** A pod that is there from the beginning to the end, with one container. */
interface Steady {
  pod: Pod;
  container: string;
}

const STEADY = { group: 'steady' };

/** What is told of the steady pods, and the processes that they have. */
async function told() {
  const { pods } = mortal;
  const filter = { label_selector: STEADY };
  const { items } = await berthd.client.runtime('ListPodSandbox', { filter });
  const { containers } = await berthd.client.runtime('ListContainers', { filter });
  const byId = (a: { id: string }, b: { id: string }) => (a.id < b.id ? -1 : 1);
  return {
    pods: items.sort(byId),
    containers: containers.sort(byId),
    podStatuses: await Promise.all(items.map(({ id }) => pods.podStatus(id))),
    statuses: await Promise.all(containers.map(({ id }) => pods.status(id))),
    namespaces: await Promise.all(
      items.map(async ({ id }) => {
        const { namespaces } = await pods.info('pod', id);
        return namespaceInode(path.join(String(namespaces), 'ipc'));
      }),
    ),
    pids: await Promise.all(containers.map(({ id }) => pods.pid('container', id))),
  };
}

type Told = Awaited<ReturnType<typeof told>>;

/** The same, but that these containers have ended with these codes; their times are not known beforehand. */
function afterEnds(before: Told, ends: ReadonlyMap<string, number>): Told {
  const state = 'CONTAINER_EXITED' as const;
  return {
    ...before,
    containers: before.containers.map((c) => (ends.has(c.id) ? { ...c, state } : c)),
    pids: before.containers.map(({ id }, i) => (ends.has(id) ? 0 : (before.pids[i] ?? 0))),
    statuses: before.statuses.map((status) => {
      const exit_code = ends.get(status.id);
      if (exit_code === undefined) return status;
      const reason = exit_code === 0 ? 'Completed' : 'Error';
      return { ...status, state, exit_code, reason, finished_at: expect.stringMatching(/^\d{19}$/) };
    }),
  };
}

async function makeSteady(): Promise<Steady[]> {
  const { pods } = mortal;
  const steady: Steady[] = [];
  await inParallel(PODS, WORKERS, async (i) => {
    const pod = await pods.run({ ...(i < WITH_ADDRESS ? {} : ON_NODE), labels: STEADY });
    const container = await pods.start(pod, {
      ...(endsWhenTold(i) ? sh(`until test -e /host/end; do sleep 0.2; done; exit ${i}`) : IDLE),
      mounts: [{ host_path: dir, container_path: '/host' }],
      labels: STEADY,
    });
    steady[i] = { pod, container };
  });
  return steady;
}

/** Of the steady pods: the container of every tenth ends by itself when it is told, while the daemon is down. */
const endsWhenTold = (i: number) => i % 10 === 0;
/** And that of every tenth is killed then. */
const isKilled = (i: number) => i % 10 === 5;

describe('a daemon that is killed with 50 pods, while others come and go', () => {
  it('goes on with all that runs, tells what ended meanwhile, and makes nothing anew', {
    timeout: 240_000,
  }, async () => {
    const steady = await makeSteady();
    let expected = await told();
    expect([expected.pods.length, expected.containers.length]).toEqual([PODS, PODS]);
    const addresses = expected.podStatuses.map((status) => status.network?.ip);
    expect(new Set(addresses.filter((ip) => ip !== '')).size).toBe(WITH_ADDRESS);
    const pids = new Map(expected.containers.map(({ id }, i) => [id, expected.pids[i] ?? 0]));

    const others = inParallel(24, 4, (i) => live(mortal, new Random(SEED + i)));
    const hits = new Random(SEED);
    const busy = () => {
      const enough = mortal.requests + 5 + hits.below(10);
      return until('others come and go', () => mortal.requests >= enough, 60_000);
    };
    await Promise.race([others, busy()]);
    await mortal.kill();
    expect(await told()).toEqual(expected);

    const ending = steady.flatMap(({ container }, i) => (endsWhenTold(i) ? [{ container, code: i }] : []));
    const killed = steady.flatMap(({ container }, i) => (isKilled(i) ? [{ container, code: 137 }] : []));
    const ends = new Map([...ending, ...killed].map(({ container, code }) => [container, code]));
    await Promise.race([others, busy()]);
    await mortal.kill(async () => {
      await writeFile(path.join(dir, 'end'), '');
      for (const { container } of killed) process.kill(pids.get(container) ?? 0, 'SIGKILL');
      await until('they have ended', () => ![...ends.keys()].some((id) => runs(pids.get(id) ?? 0)));
    });
    expected = afterEnds(expected, ends);
    expect(await told()).toEqual(expected);

    await Promise.race([others, busy()]);
    await mortal.kill();
    expect(await told()).toEqual(expected);
    await others;
    expect(mortal.deaths).toBe(3);

    // Nothing but the steady pods is there, and what runs of them works.
    const { items } = await berthd.client.runtime('ListPodSandbox', {});
    expect(items.length).toBe(PODS);
    for (const [i, { container }] of steady.entries()) {
      const isRunning = !ends.has(container);
      expect(runs(pids.get(container) ?? 0), `pod ${i}`).toBe(isRunning);
      if (isRunning && i < WITH_ADDRESS) {
        const inside = await mortal.pods.ask(container, "ip -4 -o addr show eth0 | awk '{print $4}'");
        const { network } = await mortal.pods.podStatus(steady[i]?.pod ?? '');
        expect(inside).toBe(`${network?.ip}/24`);
      }
    }
  });

  it('says Version and Status while it recovers; lists wait, and are whole', async () => {
    const { pods } = mortal;
    const made = [await pods.run(ON_NODE), await pods.run()];
    for (const pod of made) await pods.start(pod);
    const before = await pods.everything();
    await plan.set([{ point: 'Recovery.container', action: 'delay 5000' }]);
    await mortal.kill();
    let isListed = false;
    const listed = pods.everything().finally(() => (isListed = true));
    const { client } = berthd;
    const { version } = await client.runtime('Version', {});
    const { status } = await client.runtime('Status', {});
    const { linux } = await client.runtime('RuntimeConfig', {});
    const { image_filesystems } = await client.image('ImageFsInfo', {});
    expect(isListed).toBe(false);
    expect(version).toBe('0.1.0');
    expect(status?.conditions).toContainEqual(
      expect.objectContaining({ type: 'RuntimeReady', status: true }),
    );
    expect([linux?.cgroup_driver, image_filesystems.length]).toEqual(['CGROUPFS', 1]);
    expect(await listed).toEqual(before);
    expect(await plan.done()).toEqual(['Recovery.container delay 5000']);
  });
});

describe('a fork bomb', () => {
  /** Of all processes of the pod, as the kubelet limits them: the bomb must not reach the machine. */
  const MAX_PIDS = 150;
  /** The first process makes but one other, which it can, and then stays: a shell that cannot fork ends. */
  const BOMB = 'bomb() { bomb | bomb & }; (bomb) & exec sleep 100000';

  // As PID 1 the first process takes no notice of SIGTERM.
  it.each([
    ['of its own', 137, OWN_PID],
    ['that the pod shares', 143, { namespace_options: { pid: 'POD' as const } }],
  ])(
    'in a PID namespace %s ends when it is stopped, and hurts nobody else',
    async (_name, exit_code, security_context) => {
      const { pods } = mortal;
      const cgroup_parent = `${berthd.cgroupParent}/bomb`;
      const limited = '/sys/fs/cgroup/pids';
      const cgroup = path.join(existsSync(limited) ? limited : '/sys/fs/cgroup', cgroup_parent);
      await mkdir(cgroup, { recursive: true });
      await writeFile(path.join(cgroup, 'pids.max'), String(MAX_PIDS));
      const current = () => Number(readFileSync(path.join(cgroup, 'pids.current'), 'utf8'));
      try {
        const pod = await pods.run({ linux: { cgroup_parent, security_context } });
        const bystander = await pods.start(await pods.run(ON_NODE));
        const quiet = await pods.start(pod, { ...IDLE, linux: { security_context } });
        const resources = { cpu_period: 100_000, cpu_quota: 50_000 };
        const bomb = await pods.start(pod, sh(BOMB, { linux: { security_context, resources } }));
        await until('it has gone off', () => current() > MAX_PIDS - 20);
        expect(await pods.ask(bystander, 'echo unhurt')).toBe('unhurt');
        await pods.stop(bomb, 1);
        expect(await pods.status(bomb)).toMatchObject({ state: 'CONTAINER_EXITED', exit_code });
        await until('its processes are gone', () => current() < 10);
        expect((await pods.status(quiet)).state).toBe('CONTAINER_RUNNING');
        expect(await pods.ask(quiet, 'echo unhurt')).toBe('unhurt');
        await pods.removePod(pod);
        expect((await refusal(pods.status(bomb))).kind).toBe('notFound');
      } finally {
        await removeAll();
        for (const made of await cgroupDirs(cgroup_parent)) await rmdir(made);
        for (const made of await cgroupDirs(berthd.cgroupParent)) await rmdir(made);
      }
    },
  );
});
