import { setTimeout as delay } from 'node:timers/promises';
import type { Command } from 'commander';
import type { ContainerStats__Output as Stats } from '../../../proto/gen/runtime/v1/ContainerStats.ts';
import type { Client } from '../client.ts';
import type { Context } from '../context.ts';
import { shortId, writeJson, writeList } from '../output.ts';
import { inventory, podName, podOf, resolve } from '../resolve.ts';
import { formatBytes } from '../units.ts';

interface Options {
  trunc: boolean;
}

/** Between the two looks that a rate needs when the daemon tells none. */
const SAMPLE_MS = 1000;

export function configure(command: Command, context: () => Context): void {
  command
    .description(
      'Shows what running containers use: CPU now, memory that cannot be reclaimed, their own files.',
    )
    .argument('[pod-or-container]', 'only this one, or those of this pod')
    .option('--no-trunc', 'whole ids')
    .addHelpText('after', '\nCPU is in cores: 0.50 is half of one.\n\nExamples:\n  berth stats default/web\n')
    .action((word: string | undefined, options: Options) => stats(context(), word, options));
}

async function stats(context: Context, word: string | undefined, options: Options): Promise<void> {
  const client = await context.client();
  const all = await inventory(client);
  const wanted = word === undefined ? undefined : resolve(word, all, ['pod', 'container']);
  const filter =
    wanted === undefined
      ? {}
      : wanted.kind === 'pod'
        ? { pod_sandbox_id: wanted.pod.id }
        : { id: wanted.container.id };
  const running = new Set(all.containers.filter((c) => c.state === 'CONTAINER_RUNNING').map(({ id }) => id));
  const items = (await sample(client, filter)).filter(({ attributes }) => running.has(attributes?.id ?? ''));
  if (context.output === 'json') return writeJson(context, items);
  const rates = await coresOf(client, filter, items, context.signal);
  const row = (item: Stats) => {
    const id = item.attributes?.id ?? '';
    const container = all.containers.find((c) => c.id === id);
    const cores = rates.get(id);
    return [
      shortId(id, !options.trunc),
      podName(container && podOf(container, all)),
      item.attributes?.metadata?.name ?? '',
      cores === undefined ? '-' : cores.toFixed(2),
      bytes(item.memory?.working_set_bytes?.value),
      bytes(item.swap?.swap_usage_bytes?.value),
      bytes(item.writable_layer?.used_bytes?.value),
    ];
  };
  const head = ['CONTAINER', 'POD', 'NAME', 'CPU', 'MEMORY', 'SWAP', 'DISK'];
  writeList(context, items, { head, row, id: (item) => item.attributes?.id ?? '' });
}

async function sample(client: Client, filter: { id?: string; pod_sandbox_id?: string }): Promise<Stats[]> {
  const answer = await client.runtime('ListContainerStats', { filter });
  return answer.stats;
}

/** Cores in use by container id: the daemon's own rate, else that between two looks. */
async function coresOf(
  client: Client,
  filter: { id?: string; pod_sandbox_id?: string },
  first: readonly Stats[],
  signal: AbortSignal,
): Promise<Map<string, number>> {
  const rates = new Map<string, number>();
  for (const { attributes, cpu } of first) {
    if (attributes && cpu?.usage_nano_cores) {
      rates.set(attributes.id, Number(cpu.usage_nano_cores.value) / 1e9);
    }
  }
  if (first.every(({ attributes }) => rates.has(attributes?.id ?? ''))) return rates;
  await delay(SAMPLE_MS, undefined, { signal });
  const before = new Map(first.map((item) => [item.attributes?.id, item.cpu]));
  for (const { attributes, cpu } of await sample(client, filter)) {
    const earlier = before.get(attributes?.id);
    if (!attributes || rates.has(attributes.id)) continue;
    if (!cpu?.usage_core_nano_seconds || !earlier?.usage_core_nano_seconds) continue;
    const used = BigInt(cpu.usage_core_nano_seconds.value) - BigInt(earlier.usage_core_nano_seconds.value);
    const passed = BigInt(cpu.timestamp) - BigInt(earlier.timestamp);
    if (passed > 0n && used >= 0n) rates.set(attributes.id, Number(used) / Number(passed));
  }
  return rates;
}

function bytes(value: string | undefined): string {
  return value === undefined ? '-' : formatBytes(BigInt(value));
}
