import { randomInt } from 'node:crypto';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { Berthd } from '../support/berthd.ts';
import { leftovers } from '../support/leaks.ts';
import { footprint, inParallel, live, Mortal, Random, zombiesOf } from '../support/load.ts';
import { until } from '../support/pods.ts';

/**
 * How many pods are made: 1000 is a soak of some minutes, the default a look at it that CI can afford.
 * `BERTH_SOAK_PODS=1000 npx vitest run --project integration test/integration/daemon-soak.test.ts`
 */
const PODS = Number(process.env.BERTH_SOAK_PODS ?? 60);
/** Repeats the shapes of the pods and the moments of the kills. */
const SEED = Number(process.env.BERTH_SOAK_SEED ?? randomInt(2 ** 31));
const WORKERS = 8;
/** Of all pods: lived through while the daemon is killed, and then the ones after which memory is compared. */
const [WITH_KILLS, WARM_UP] = [Math.round(PODS * 0.4), Math.round(PODS * 0.25)];
const KILLS = Math.max(10, Math.round(PODS / 40));
/** A pod's life is so many requests at least. */
const REQUESTS_A_POD = 4;
/** Generous: a whole pod costs less than 0.5 s alone, and a start less than 30 s on a machine that is busy. */
const LIMIT_MS = 60_000 + PODS * 2_000 + KILLS * 10_000;
/** What the heap may keep of garbage, and what a pod may not leave behind; 350 pods have left 4 KiB each. */
const RSS_SLACK_BYTES = 32 << 20;
const RSS_A_POD_BYTES = 16 << 10;

let berthd: Berthd;

beforeAll(async () => {
  berthd = await Berthd.start({ logLevel: 'info' });
  await berthd.importBusybox();
});
afterAll(async () => expect(await berthd.close()).toEqual([]));

/** All pods are gone without a trace, also in the daemon itself. */
async function nothingIsLeft(): Promise<void> {
  await until(
    'the to-do list is empty',
    async () => (await berthd.client.info()).cleanup_tasks.length === 0,
    90_000,
  );
  expect(await leftovers(berthd)).toEqual([]);
  await until('all children are reaped', () => zombiesOf(berthd.pid).length === 0, 30_000);
  const { items } = await berthd.client.runtime('ListPodSandbox', {});
  const { containers } = await berthd.client.runtime('ListContainers', {});
  expect([...items, ...containers]).toEqual([]);
}

it(`${PODS} pods made and removed by ${WORKERS} workers, while the daemon is killed, leave nothing`, {
  timeout: LIMIT_MS,
}, async () => {
  console.log(`BERTH_SOAK_SEED=${SEED} BERTH_SOAK_PODS=${PODS} repeats this`);
  const mortal = new Mortal(berthd);
  const lives = (first: number, count: number) =>
    inParallel(count, WORKERS, (i) => live(mortal, new Random(SEED + first + i)));

  mortal.aim(new Random(SEED), KILLS, WITH_KILLS * REQUESTS_A_POD);
  await lives(0, WITH_KILLS);
  await mortal.settled();
  expect(mortal.deaths).toBe(KILLS);
  await nothingIsLeft();

  // The daemon of the last start lives through the rest, so that its beginning and end can be compared.
  await lives(WITH_KILLS, WARM_UP);
  await nothingIsLeft();
  const warm = footprint(berthd.pid);
  const rest = PODS - WITH_KILLS - WARM_UP;
  await lives(WITH_KILLS + WARM_UP, rest);
  await nothingIsLeft();
  const end = footprint(berthd.pid);
  console.log(`after warm-up ${JSON.stringify(warm)}, after ${rest} pods more ${JSON.stringify(end)}`);
  expect(mortal.deaths).toBe(KILLS);
  expect(end.descriptors).toBeLessThanOrEqual(warm.descriptors + 2);
  expect(end.rssBytes - warm.rssBytes).toBeLessThan(RSS_SLACK_BYTES + rest * RSS_A_POD_BYTES);
});
