import { Command, CommanderError, Option } from 'commander';
import { messageOf } from '../errors.ts';
import { BERTH_VERSION } from '../version.ts';
import type { Client } from './client.ts';
import type { Context } from './context.ts';
import { EXIT, ExitStatus, exitCodeOf, UsageError } from './errors.ts';

/** What the outside gives to one run of `berth`. */
export interface Io {
  stdin: NodeJS.ReadableStream;
  stdout: NodeJS.WritableStream;
  stderr: NodeJS.WritableStream;
  env: Readonly<Record<string, string | undefined>>;
  /** Aborted when the user wants to end berth. */
  signal: AbortSignal;
}

/** A verb's module: adds arguments, options, help and action to its command. */
export interface Verb {
  configure(command: Command, context: () => Context): void;
}

const DEFAULT_ENDPOINT = 'unix:///run/berth/berth.sock';

/** Only the module of the verb in use is loaded: most of berth's start-up time is loading code. */
const VERBS: readonly { name: string; summary: string; load: () => Promise<Verb> }[] = [
  { name: 'run', summary: 'run the pods of a Kubernetes YAML file', load: () => import('./verbs/run.ts') },
  { name: 'ps', summary: 'list containers', load: () => import('./verbs/ps.ts') },
  { name: 'pods', summary: 'list pods', load: () => import('./verbs/pods.ts') },
  { name: 'images', summary: 'list images', load: () => import('./verbs/images.ts') },
  { name: 'pull', summary: 'pull an image from its registry', load: () => import('./verbs/pull.ts') },
  { name: 'import', summary: 'add the images of an archive', load: () => import('./verbs/import.ts') },
  { name: 'export', summary: 'write images as one archive', load: () => import('./verbs/export.ts') },
  {
    name: 'build-rootfs',
    summary: 'make an image of a directory',
    load: () => import('./verbs/build-rootfs.ts'),
  },
  { name: 'rmi', summary: 'remove images', load: () => import('./verbs/rmi.ts') },
  { name: 'du', summary: 'show what images take of the disk', load: () => import('./verbs/du.ts') },
  { name: 'gc', summary: 'remove what nothing needs', load: () => import('./verbs/gc.ts') },
  { name: 'logs', summary: 'print the log of a container', load: () => import('./verbs/logs.ts') },
  { name: 'exec', summary: 'run a command in a container', load: () => import('./verbs/exec.ts') },
  {
    name: 'attach',
    summary: "join a running container's output and input",
    load: () => import('./verbs/attach.ts'),
  },
  {
    name: 'port-forward',
    summary: "reach a pod's ports on this machine",
    load: () => import('./verbs/port-forward.ts'),
  },
  { name: 'start', summary: 'start a created container', load: () => import('./verbs/start.ts') },
  { name: 'stop', summary: 'stop pods or containers', load: () => import('./verbs/stop.ts') },
  { name: 'rm', summary: 'remove pods or containers', load: () => import('./verbs/rm.ts') },
  {
    name: 'inspect',
    summary: 'show all about a pod, container or image',
    load: () => import('./verbs/inspect.ts'),
  },
  { name: 'stats', summary: 'show what running containers use', load: () => import('./verbs/stats.ts') },
  {
    name: 'top',
    summary: 'watch what running containers use',
    load: () => import('./verbs/top.ts'),
  },
  { name: 'vm', summary: 'build what virtual machines boot', load: () => import('./verbs/vm.ts') },
  { name: 'info', summary: 'show the daemon and its node', load: () => import('./verbs/info.ts') },
];

const EPILOG = `
Pods and containers are named by id, by the beginning of an id that only one has, or by name:
POD, NAMESPACE/POD, POD/CONTAINER, NAMESPACE/POD/CONTAINER.

Exit status: 0 done; 1 the operation failed; 2 wrong command line or file; 3 not found; 4 no daemon
answers; 130 interrupted. "berth exec" and "berth run --rm" end with the status of the command or container.

Examples:
  berth run web.yaml              run a pod from ordinary Kubernetes YAML
  berth logs -f default/web/nginx follow a container's log
  berth --endpoint unix:///run/containerd/containerd.sock ps -a
  berth pods -o json | jq -r '.[].id'
`;

/**
 * Runs berth with these arguments (without `node` and the script). Everything that it prints goes to `io`.
 *
 * @returns the exit status
 */
export async function run(argv: readonly string[], io: Io): Promise<number> {
  const session = new Session(io);
  try {
    const program = await buildProgram(argv, session);
    await program.parseAsync([...argv], { from: 'user' });
    return io.signal.aborted ? EXIT.interrupted : EXIT.ok;
  } catch (e: unknown) {
    if (e instanceof CommanderError) return e.exitCode === 0 ? EXIT.ok : EXIT.usage;
    if (io.signal.aborted) return EXIT.interrupted;
    const code = exitCodeOf(e);
    if (!(e instanceof ExitStatus)) io.stderr.write(`berth: ${messageOf(e)}\n`);
    return code;
  } finally {
    await session.close();
  }
}

async function buildProgram(argv: readonly string[], session: Session): Promise<Command> {
  const { stdout, stderr } = session.io;
  const program = new Command('berth')
    .description('Runs and looks after the pods of this node, through any CRI socket.')
    .usage('[options] VERB …')
    .enablePositionalOptions()
    .configureHelp({ subcommandTerm: (command) => command.name() })
    .exitOverride()
    .configureOutput({
      writeOut: (text) => stdout.write(text),
      writeErr: (text) => stderr.write(text.replace(/^error: /, 'berth: ')),
    })
    .showHelpAfterError('(berth --help shows how)')
    .version(BERTH_VERSION, '-v, --version')
    .addHelpText('after', EPILOG);
  addGlobalOptions(program);
  for (const { name, summary } of VERBS) program.command(name).summary(summary);
  const [word, next] = program.parseOptions([...argv]).operands;
  const wanted = word === 'help' ? next : word;
  const verb = VERBS.find(({ name }) => name === wanted);
  const command = program.commands.find((candidate) => candidate.name() === verb?.name);
  if (verb && command) {
    (await verb.load()).configure(command, () => session.context(command));
    addGlobalOptions(command);
  }
  return program;
}

/** On the program and on every verb, so that they may stand on either side of the verb. */
function addGlobalOptions(command: Command): Command {
  return command
    .addOption(
      new Option(
        '--endpoint <socket>',
        `the daemon's socket (env BERTH_ENDPOINT, else ${DEFAULT_ENDPOINT})`,
      ).helpGroup('Global options:'),
    )
    .addOption(
      new Option('--timeout <duration>', 'how long a call may take, such as 30s (0: for ever)').helpGroup(
        'Global options:',
      ),
    )
    .addOption(
      new Option('-o, --output <form>', 'table for people, json for programs')
        .choices(['table', 'json'])
        .helpGroup('Global options:'),
    );
}

/** One run: makes the context when a verb asks, and closes what it opened. */
class Session {
  readonly io: Io;
  #client: Promise<Client> | undefined;

  constructor(io: Io) {
    this.io = io;
  }

  context(command: Command): Context {
    const options = command.optsWithGlobals<GlobalOptions>();
    const { stdin, stdout, stderr, env, signal } = this.io;
    return {
      client: () => {
        this.#client ??= this.#connect(options);
        return this.#client;
      },
      output: options.output ?? 'table',
      stdout,
      stderr,
      stdin,
      env,
      signal,
    };
  }

  async close(): Promise<void> {
    const client = await this.#client?.catch(() => undefined);
    client?.close();
  }

  async #connect(options: GlobalOptions): Promise<Client> {
    const endpoint = options.endpoint ?? (this.io.env.BERTH_ENDPOINT || DEFAULT_ENDPOINT);
    const [{ Client }, { parseDuration }] = await Promise.all([import('./client.ts'), import('./units.ts')]);
    const timeout = parseDuration(options.timeout ?? '0');
    if (timeout === undefined) {
      throw new UsageError(`--timeout ${options.timeout}: must be a duration such as 30s or 2m`);
    }
    return new Client({
      endpoint,
      signal: this.io.signal,
      ...(options.timeout !== undefined && { timeoutMs: Number(timeout / 1_000_000n) }),
    });
  }
}

interface GlobalOptions {
  endpoint?: string;
  timeout?: string;
  output?: 'table' | 'json';
}
