import './interpret-schemas.ts';
import { setFlagsFromString } from 'node:v8';
import { Command } from 'commander';
import { loadConfig } from '../src/config/load.ts';
import { defaultConfigText } from '../src/config/print-default.ts';
import { messageOf } from '../src/errors.ts';
import { createLogger, type Logger } from '../src/log.ts';
import { startNode } from '../src/node.ts';
import { ServiceNotifier } from '../src/sys/sd-notify.ts';
import { BERTH_VERSION } from '../src/version.ts';
import { serve } from './server.ts';

/** Exit codes: 1 could not start or failed, 2 wrong usage or configuration. */
const FAILED = 1;
const WRONG_USAGE = 2;

const program = new Command('berthd')
  .description('Kubernetes container runtime: serves CRI v1 on a unix socket')
  .version(BERTH_VERSION)
  .option('--config <file>', 'configuration file (default: /etc/berth/config.toml, if it exists)')
  .exitOverride((e) => process.exit(e.exitCode === 0 ? 0 : WRONG_USAGE))
  .action(({ config }: { config?: string }) => run(config));

program
  .command('config')
  .description('about the configuration')
  .command('default')
  .description('prints the default configuration, with comments')
  .action(() => {
    process.stdout.write(defaultConfigText());
  });

program.parseAsync().catch((e: unknown) => fail(messageOf(e), FAILED));

async function run(configFile: string | undefined): Promise<void> {
  const config = await loadConfig(configFile).catch((e: unknown) => fail(messageOf(e), WRONG_USAGE));
  const log = createLogger(config.log_level);
  process.on('unhandledRejection', (e) => {
    log.fatal({ err: e }, 'a promise was rejected and nobody cared');
    process.exit(FAILED);
  });
  const notifier = new ServiceNotifier(process.env);
  const asked = firstSignal();
  try {
    const node = await startNode(config, log);
    const closeNode = async (e: unknown): Promise<never> => {
      // What it has mounted must not outlive it.
      await node.recovery.done;
      await node.close();
      throw e;
    };
    const server = await serve(node.services, node.recovery, config.listen).catch(closeNode);
    await node.services.streaming.catch(async (e: unknown) => {
      await server.close();
      await closeNode(e);
    });
    notifier.ready();
    // Code made for size. As a flag of the command line it would make Node.js compile its own modules at each
    // start: what it has compiled already is good for the standard flags only.
    setFlagsFromString('--optimize-for-size');
    log.info(
      { listen: config.listen, root: config.root, state: config.state, version: BERTH_VERSION },
      'serving',
    );
    const watchdogMs = notifier.watchdogIntervalMs;
    // It is the event loop's pulse that is shown.
    if (watchdogMs !== undefined) setInterval(() => tellAlive(notifier, log), watchdogMs).unref();
    log.info({ signal: await asked }, 'stopping; pods go on');
    notifier.stopping();
    await server.close();
    await node.close();
    process.exit(0);
  } catch (e: unknown) {
    fail(messageOf(e), FAILED);
  }
}

/** A manager that does not take one message, because it is busy or starts anew, takes the next. */
function tellAlive(notifier: ServiceNotifier, log: Logger): void {
  try {
    notifier.watchdog();
  } catch (e: unknown) {
    log.warn({ reason: messageOf(e) }, 'the service manager did not take the watchdog message');
  }
}

/**
 * Resolves with the first signal that asks for an end; the second one ends the process at once. To be called
 * before anything is started: a signal that came meanwhile is acted on when the start is complete, or
 * what was made by then would stay.
 */
function firstSignal(): Promise<NodeJS.Signals> {
  const { promise, resolve } = Promise.withResolvers<NodeJS.Signals>();
  let isAsked = false;
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      if (isAsked) process.exit(FAILED);
      isAsked = true;
      resolve(signal);
    });
  }
  return promise;
}

function fail(message: string, code: number): never {
  process.stderr.write(`berthd: ${message}\n`);
  process.exit(code);
}
