import type { Command } from 'commander';
import { agentFiles } from '../../vm/guest-image/agent-files.ts';
import { buildGuestImage } from '../../vm/guest-image/build.ts';
import type { Context } from '../context.ts';
import { writeJson } from '../output.ts';

const DEFAULT_DIR = '/var/lib/berth/guest';

interface Options {
  dir: string;
  force?: boolean;
}

export function configure(command: Command, context: () => Context): void {
  command.description('Looks after what virtual machines are made of.');
  command
    .command('build-guest')
    .description(
      "Builds the kernel and root file system of virtual machines from this machine's Debian package sources and " +
        "berth's agent, unless there is an image of the same parts. Pods that start later use it. Needs root, " +
        'and apt, dpkg and erofs-utils.',
    )
    .option('--dir <directory>', "where images are kept: berthd's vm.guest_dir", DEFAULT_DIR)
    .option('--force', 'build also when there is an image of the same parts')
    .addHelpText('after', '\nExample:\n  berth vm build-guest\n')
    .action((options: Options) => buildGuest(context(), options));
}

async function buildGuest(context: Context, { dir, force = false }: Options): Promise<void> {
  const { image, built } = await buildGuestImage({
    dir,
    agent: agentFiles(),
    force,
    progress: (step) => context.stderr.write(`berth: ${step}\n`),
    signal: context.signal,
  });
  if (context.output === 'json') return writeJson(context, { ...image, built });
  context.stdout.write(`${built ? 'built' : 'unchanged'} ${image.key} (Linux ${image.release})\n`);
}
