import { mkdtemp, rm } from 'node:fs/promises';
import { cpus, release, tmpdir } from 'node:os';
import path from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { bench, MEASURES } from './bench.ts';
import { type Made, makeBerth, makeContainerd, makeEndpoint } from './daemons.ts';
import type { Size } from './measure.ts';
import { type Row, toJson, toTable } from './report.ts';
import { Subject } from './subject.ts';

const FULL: Size = {
  rounds: 3,
  pods: 100,
  starts: 8,
  lives: 32,
  execs: 24,
  logLines: 2_000_000,
  calls: 60,
  imageScale: 1,
  idleMs: 15_000,
};
const QUICK: Size = {
  rounds: 1,
  pods: 10,
  starts: 3,
  lives: 8,
  execs: 8,
  logLines: 200_000,
  calls: 15,
  imageScale: 0.1,
  idleMs: 2_000,
};
/** Whatever happens, the bench ends. */
const LIMIT_MS = 30 * 60_000;

interface Options {
  quick?: boolean;
  only: string[];
  rounds?: number;
  pods?: number;
  output: 'table' | 'json';
  endpoint?: string;
  image: string;
  helpers: string[];
  cgroupParent: string;
}

const program = new Command('bench')
  .description("Compares this checkout's berthd with Debian's containerd, in turn, on this machine")
  .option('--quick', 'a look: one round, few pods')
  .option('--only <names>', `some measures only: ${MEASURES.join(', ')}`, listOf(MEASURES), [])
  .option('--rounds <n>', 'how often each measure is taken', count)
  .option('--pods <n>', 'pods of the populated node', count)
  .addOption(new Option('-o, --output <format>').choices(['table', 'json']).default('table'))
  .option('--endpoint <socket>', 'measure the daemon at this CRI socket alone, which goes on')
  .option(
    '--image <name>',
    'with --endpoint: an image that is there, with sh, sleep, true, cat, seq',
    'busybox',
  )
  .option('--helpers <names>', 'with --endpoint: programs that are its helpers', names, [
    'conmon',
    'containerd-shim',
  ])
  .option('--cgroup-parent <path>', "with --endpoint: the pods' cgroup; x.slice with systemd", '/berth-bench')
  .action(run);

await program.parseAsync();

async function run(options: Options): Promise<void> {
  const size: Size = {
    ...(options.quick === true ? QUICK : FULL),
    ...(options.rounds === undefined ? {} : { rounds: options.rounds }),
    ...(options.pods === undefined ? {} : { pods: options.pods }),
  };
  const interrupted = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => interrupted.abort());
  const signal = AbortSignal.any([interrupted.signal, AbortSignal.timeout(LIMIT_MS)]);
  const rows: Row[] = [];
  const subjects: Subject[] = [];
  const left: string[] = [];
  const directory = await mkdtemp(path.join(tmpdir(), 'berth-bench-'));
  let about: object = {};
  try {
    await makeSubjects(options, directory, signal, subjects);
    about = await describe(subjects, size);
    await bench({ subjects, size, only: options.only, progress }, rows);
  } catch (e: unknown) {
    progress(signal.aborted ? 'interrupted' : `failed: ${e instanceof Error ? e.stack : String(e)}`);
    process.exitCode = 1;
  } finally {
    progress('cleaning up');
    for (const subject of subjects) left.push(...(await subject.close()));
    await rm(directory, { recursive: true, force: true });
  }
  if (left.length > 0) process.exitCode = 1;
  if (options.output === 'json') {
    process.stdout.write(`${toJson(rows, { ...about, left })}\n`);
    return;
  }
  const head = Object.entries(about).map(([key, value]) => `${key}: ${value}\n`);
  const names = subjects.map(({ name }) => name);
  const foot = left.length === 0 ? 'left behind: nothing' : `left behind:\n${left.join('\n')}`;
  process.stdout.write(`${head.join('')}${toTable(rows, names)}\n${foot}\n`);
}

async function makeSubjects(
  options: Options,
  directory: string,
  signal: AbortSignal,
  subjects: Subject[],
): Promise<void> {
  const { endpoint, image, helpers, cgroupParent } = options;
  const makers: [string, () => Promise<Made>][] =
    endpoint === undefined
      ? [
          ['berth', makeBerth],
          ['containerd', makeContainerd],
        ]
      : [[endpoint, () => makeEndpoint({ endpoint, image, helpers, cgroupParent })]];
  for (const [name, make] of makers) {
    progress(`${name}: starting`);
    const made = await make();
    subjects.push(
      new Subject({ name, ...made, directory: await mkdtemp(path.join(directory, 'pods-')), signal }),
    );
  }
}

async function describe(subjects: readonly Subject[], size: Size): Promise<object> {
  const versions = await Promise.all(subjects.map((subject) => subject.version()));
  return {
    daemons: versions.join(', '),
    machine: `${cpus().length} CPUs, Linux ${release()}, Node.js ${process.version} for client and bench`,
    size: `${size.rounds} rounds, ${size.pods} pods`,
  };
}

function progress(message: string): void {
  process.stderr.write(`bench: ${message}\n`);
}

function count(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1 || value > 1000) {
    throw new InvalidArgumentError('must be a whole number from 1 to 1000');
  }
  return value;
}

function names(text: string): string[] {
  return text.split(',').filter((name) => name !== '');
}

function listOf(known: readonly string[]): (text: string) => string[] {
  return (text) => {
    const unknown = names(text).find((name) => !known.includes(name));
    if (unknown !== undefined) throw new InvalidArgumentError(`no measure "${unknown}"`);
    return names(text);
  };
}
