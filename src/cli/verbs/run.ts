import { mkdir, readFile, realpath } from 'node:fs/promises';
import path from 'node:path';
import type { Command } from 'commander';
import { BerthError, during, kindOf } from '../../errors.ts';
import type { Client } from '../client.ts';
import { type Context, warn } from '../context.ts';
import { ExitStatus, UsageError } from '../errors.ts';
import { containerStatus, hasEnded, inventoryOfPod, removePod, waitForExit } from '../lifecycle.ts';
import { readLog } from '../logs/follow.ts';
import { printLog } from '../logs/print.ts';
import { writeJson } from '../output.ts';
import { parsePods } from '../pod/parse.ts';
import { defaultNodeName, nodeFacts, planPod } from '../pod/plan.ts';
import { prepareImages, rollBack, type StartedPod, startPod } from '../pod/start.ts';
import type { PodPlan } from '../pod/to-cri.ts';
import { inventory, podName } from '../resolve.ts';

interface Options {
  rm?: boolean;
  replace?: boolean;
  podsDir: string;
  nodeName: string;
  cgroupParent: string;
}

const HELP = `
Every document of the file is a v1 Pod. Init containers run in order; berth returns when all containers
are started and prints the id of each pod. What a field asks that berth cannot do is said on stderr.
There is no kubelet here: restartPolicy, probes and lifecycle hooks have no effect. A failure removes
whatever this command made. Volumes are emptyDir and hostPath.

With --rm, the output of the main containers is shown, and the exit status is that of the first container
of the file that failed.

Examples:
  berth run web.yaml
  berth run --rm job.yaml
  kubectl get pod web -o yaml | berth run --replace -
`;

export function configure(command: Command, context: () => Context): void {
  command
    .description('Runs the pods of a Kubernetes YAML file.')
    .argument('<file>', 'YAML or JSON, one or more documents; - for standard input')
    .option('--rm', 'show the output, wait for the end, then remove the pods')
    .option('--replace', 'first remove pods of the same name')
    .option('--pods-dir <directory>', "for the pods' logs and volumes", '/var/lib/berth/pods')
    .option('--node-name <name>', 'what spec.nodeName tells the pods', defaultNodeName())
    .option('--cgroup-parent <path>', "cgroup above the pods' own (default: the daemon's)", '')
    .addHelpText('after', HELP)
    .action((file: string, options: Options) => runPods(context(), file, options));
}

async function runPods(context: Context, file: string, options: Options): Promise<void> {
  const parsed = parsePods(await readInput(context, file), file);
  const node = await nodeFacts(options.cgroupParent);
  const podsDirectory = await makePodsDirectory(options.podsDir);
  const plans = parsed.map((pod) => planPod(pod, node, { ...options, podsDirectory }));
  for (const { pod, warnings } of parsed) {
    for (const text of warnings) warn(context, `pod ${pod.metadata.name}: ${text}`);
  }
  const client = await context.client();
  await makeRoom(client, plans, options.replace === true);
  const images = await prepareImages(context, client, plans);
  const started: StartedPod[] = [];
  for (const [index, plan] of plans.entries()) {
    try {
      started.push(await startPod(context, client, plan, images));
    } catch (e: unknown) {
      await rollBack(context, client, plans.slice(0, index));
      throw e;
    }
  }
  if (options.rm) return attend(context, client, plans, started);
  if (context.output === 'json') writeJson(context, started);
  else context.stdout.write(started.map(({ id }) => `${id}\n`).join(''));
}

async function readInput(context: Context, file: string): Promise<string> {
  if (file !== '-') {
    return readFile(file, 'utf8').catch((e: unknown) => {
      throw new UsageError(during(`read ${file}`, e).message);
    });
  }
  const chunks: Buffer[] = [];
  for await (const chunk of context.stdin) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks).toString();
}

/** Resolved, so that a pod's directory is later known by the same path whatever links led to it. */
async function makePodsDirectory(directory: string): Promise<string> {
  const absolute = path.resolve(directory);
  await mkdir(absolute, { recursive: true, mode: 0o750 });
  return realpath(absolute);
}

/** A name means one pod on a node. */
async function makeRoom(client: Client, plans: readonly PodPlan[], replace: boolean): Promise<void> {
  const { pods, containers } = await inventory(client);
  const names = plans.map(({ pod }) => `${pod.metadata.namespace ?? 'default'}/${pod.metadata.name}`);
  const present = pods.filter((pod) => names.includes(podName(pod)));
  const first = present[0];
  if (first && !replace) {
    const name = podName(first);
    throw new BerthError(
      'alreadyExists',
      `pod ${name} exists; remove it (berth rm -f ${name}) or use --replace`,
    );
  }
  for (const pod of present) await removePod(client, pod, containers);
}

/** Shows the main containers' output until all have ended, then removes the pods. */
async function attend(
  context: Context,
  client: Client,
  plans: readonly PodPlan[],
  started: readonly StartedPod[],
): Promise<void> {
  const mains = started.flatMap((pod) =>
    pod.containers.filter(({ init }) => !init).map((c) => ({ ...c, pod })),
  );
  const codes: number[] = [];
  try {
    const shown = mains.map(async ({ id, name, pod }) => {
      const { log_path } = await containerStatus(client, id);
      const owner = started.length > 1 ? `${pod.name}/${name}` : name;
      await printLog(readLog(log_path, { ended: () => hasEnded(client, id), signal: context.signal }), {
        stdout: context.stdout,
        stderr: context.stderr,
        prefix: mains.length > 1 ? `${owner}: ` : '',
      });
    });
    const ends = mains.map(({ id }) => waitForExit(client, id, context.signal));
    const [statuses] = await Promise.all([Promise.all(ends), Promise.all(shown)]);
    codes.push(...statuses.map(({ exit_code }) => exit_code));
  } catch (e: unknown) {
    if (kindOf(e) !== 'cancelled' && !context.signal.aborted) throw e;
  } finally {
    await removeAll(context, client, plans);
  }
  const failed = codes.find((code) => code !== 0);
  if (context.signal.aborted) throw new BerthError('cancelled', 'interrupted');
  if (failed !== undefined) throw new ExitStatus(failed);
}

/** With the pods' own grace, and to the end even after Ctrl-C. */
async function removeAll(context: Context, client: Client, plans: readonly PodPlan[]): Promise<void> {
  const cleaner = client.uninterrupted();
  try {
    for (const { facts } of plans.toReversed()) {
      const { pods, containers } = await inventoryOfPod(cleaner, facts.uid);
      for (const pod of pods) await removePod(cleaner, pod, containers);
    }
  } catch (e: unknown) {
    warn(context, during('remove pods', e).message);
    throw e;
  } finally {
    cleaner.close();
  }
}
