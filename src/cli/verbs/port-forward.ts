import type { AddressInfo, Server } from 'node:net';
import type { Command } from 'commander';
import { BerthError } from '../../errors.ts';
import { type Context, warn } from '../context.ts';
import { inventory, resolve } from '../resolve.ts';
import { connectSpdy } from '../streaming/connect.ts';
import { listenAndForward, parsePortPair } from '../streaming/forward.ts';

interface Options {
  address: string;
}

export function configure(command: Command, context: () => Context): void {
  command
    .description("Makes ports of a pod's network reachable on this machine, until it is interrupted.")
    .argument('<pod>', 'id, beginning of an id, or name')
    .argument('<ports...>', 'LOCAL:REMOTE, REMOTE, or :REMOTE for any free local port')
    .option('--address <address>', 'where to listen', '127.0.0.1')
    .addHelpText(
      'after',
      '\nExamples:\n  berth port-forward web 8080:80\n  berth port-forward web :80 5432\n',
    )
    .action((pod: string, ports: string[], options: Options) => portForward(context(), pod, ports, options));
}

async function portForward(context: Context, word: string, words: string[], options: Options): Promise<void> {
  const pairs = words.map(parsePortPair);
  const client = await context.client();
  const target = resolve(word, await inventory(client), ['pod']);
  if (target.kind !== 'pod') return;
  const request = { pod_sandbox_id: target.pod.id, port: pairs.map(({ remote }) => remote) };
  const { url } = await client.runtime('PortForward', request);
  const connection = await connectSpdy(url, 'portforward.k8s.io');
  const servers: Server[] = [];
  try {
    for (const pair of pairs) {
      const server = await listenAndForward(connection, pair, options.address, (message) =>
        warn(context, message),
      );
      servers.push(server);
      const { address, port } = server.address() as AddressInfo;
      context.stdout.write(`${address.includes(':') ? `[${address}]` : address}:${port} -> ${pair.remote}\n`);
    }
    await over([connection.closed, context.signal]);
    if (!context.signal.aborted) throw new BerthError('unavailable', 'the connection to the pod was lost');
  } finally {
    for (const server of servers) server.close();
    connection.destroy();
  }
}

/** Resolves when one of the signals is aborted. */
function over(signals: AbortSignal[]): Promise<void> {
  const any = AbortSignal.any(signals);
  return new Promise((resolve) => {
    if (any.aborted) resolve();
    any.addEventListener('abort', () => resolve(), { once: true });
  });
}
