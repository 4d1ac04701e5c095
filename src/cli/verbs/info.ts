import type { Command } from 'commander';
import { z } from 'zod';
import { kindOf } from '../../errors.ts';
import type { Context } from '../context.ts';
import { printable, writeJson } from '../output.ts';
import { formatBytes, formatDuration } from '../units.ts';
import { parseInfo } from './inspect.ts';

export function configure(command: Command, context: () => Context): void {
  command
    .description('Shows the daemon, whether it is ready, and what is on its node.')
    .addHelpText('after', "\nExamples:\n  berth info\n  berth info -o json | jq '.status.conditions'\n")
    .action(() => info(context()));
}

async function info(context: Context): Promise<void> {
  const client = await context.client();
  const [version, status, images, node] = await Promise.all([
    client.runtime('Version', {}),
    client.runtime('Status', { verbose: true }),
    client.image('ImageFsInfo', {}),
    client.info().catch((e: unknown) => {
      if (kindOf(e) === 'unimplemented') return undefined;
      throw e;
    }),
  ]);
  const filesystems = images.image_filesystems;
  if (context.output === 'json') {
    const { status: state, info: more, runtime_handlers, features } = status;
    return writeJson(context, {
      version,
      status: state,
      runtime_handlers,
      features,
      image_filesystems: filesystems,
      node: node ?? null,
      info: parseInfo(more),
    });
  }
  const lines: [string, string][] = [
    ['Daemon', `${version.runtime_name} ${version.runtime_version}, CRI ${version.runtime_api_version}`],
    ...(status.status?.conditions ?? []).map((c): [string, string] => [
      c.type,
      c.status ? 'yes' : `no: ${[c.reason, c.message].filter(Boolean).join(': ')}`,
    ]),
    ...filesystems.map((fs): [string, string] => [
      'Images',
      `${formatBytes(BigInt(fs.used_bytes?.value ?? 0))} in ${fs.fs_id?.mountpoint ?? '?'}`,
    ]),
    ...handlerLine(status.runtime_handlers.map(({ name }) => name)),
  ];
  lines.push(...cdiProblems(parseInfo(status.info).cdi));
  if (node) {
    lines.push(
      ['Pods', node.sandboxes],
      ['Containers', node.containers],
      ['Image count', node.images],
      ['Up', formatDuration(BigInt(node.uptime_seconds) * 1_000_000_000n)],
      ['Node.js', node.node_version],
      ['Root', node.root],
      ['State', node.state],
      ['Cgroups', `${node.cgroup_mode}, ${node.cgroup_driver} driver`],
      ...node.cleanup_tasks.map((task): [string, string] => [
        'To clean up',
        `${task.kind} ${task.target}, tried ${task.attempts} times: ${task.last_error}`,
      ]),
    );
  }
  const width = Math.max(...lines.map(([name]) => name.length)) + 2;
  const text = lines.map(([name, value]) => `${`${name}:`.padEnd(width)} ${printable(value)}\n`);
  context.stdout.write(text.join(''));
}

const cdiSchema = z.object({ problems: z.array(z.string()) });

/** Files for device plugins' devices that cannot be used; daemons other than berthd tell nothing of them. */
function cdiProblems(cdi: unknown): [string, string][] {
  const { data } = cdiSchema.safeParse(cdi);
  return (data?.problems ?? []).map((problem) => ['CDI', problem]);
}

/** The default handler is also listed under the empty name. */
function handlerLine(names: readonly string[]): [string, string][] {
  const named = names.filter((name) => name !== '');
  return named.length === 0 ? [] : [['Runtimes', named.join(', ')]];
}
