import { writeSync } from 'node:fs';
import { messageOf } from '../../errors.ts';
import { BERTH_VERSION } from '../../version.ts';
import { parseArguments } from './arguments.ts';

const FAILED = 1;

/** Verbs have modules of their own, so that the daemon does not carry what only `start` needs. */
async function run(argv: readonly string[]): Promise<void> {
  const args = parseArguments(argv);
  switch (args.verb) {
    case 'serve': {
      const { serveTasks } = await import('./serve.ts');
      return serveTasks(args);
    }
    case 'start': {
      const { start } = await import('./start.ts');
      const flags = argv.slice(0, -1);
      const self = [process.execPath, ...process.execArgv, process.argv[1] ?? '', ...flags, 'serve'];
      writeSync(1, await start(args, self));
      return;
    }
    case 'delete': {
      const { deleteBundle } = await import('./delete.ts');
      const { loadShimProtos } = await import('../../shim/protos.ts');
      writeSync(1, await deleteBundle(args, loadShimProtos()));
      return;
    }
    case 'version':
    case 'info':
      writeSync(1, `containerd-shim-berth-vm-v2 ${BERTH_VERSION}\n`);
  }
}

try {
  await run(process.argv.slice(2));
  process.exit(0);
} catch (e: unknown) {
  writeSync(2, `${messageOf(e)}\n`);
  process.exit(FAILED);
}
