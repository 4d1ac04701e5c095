import type { Command } from 'commander';
import type { Context } from '../context.ts';
import { dockerCredentials } from '../docker-config.ts';
import { UsageError } from '../errors.ts';
import { writeJson } from '../output.ts';
import { pullImage } from '../pull-image.ts';

interface Options {
  username?: string;
  passwordStdin?: boolean;
  authFile?: string;
}

/** Passwords and tokens are short; what is longer is a mistake. */
const MAX_PASSWORD = 64 << 10;

export function configure(command: Command, context: () => Context): void {
  command
    .description('Pulls images and prints the id of each.')
    .argument('<image...>', 'names such as busybox, registry:5000/team/app:1.2 or name@sha256:…')
    .option('-u, --username <name>', 'for the registry; asks for --password-stdin')
    .option('--password-stdin', 'read the password from standard input')
    .option('--auth-file <file>', "credentials as docker login writes them; default: docker's config.json")
    .addHelpText(
      'after',
      '\nExamples:\n  berth pull docker.io/library/busybox:1.36\n' +
        '  berth pull -u bot --password-stdin registry.example/app < password\n',
    )
    .action((images: string[], options: Options) => pull(context(), images, options));
}

async function pull(context: Context, images: string[], options: Options): Promise<void> {
  if ((options.username === undefined) === (options.passwordStdin === true)) {
    throw new UsageError('--username and --password-stdin go together');
  }
  const given =
    options.username === undefined
      ? undefined
      : { username: options.username, password: await readPassword(context.stdin) };
  const client = await context.client();
  const pulled: { image: string; image_ref: string }[] = [];
  for (const image of images) {
    const credentials = given ?? (await dockerCredentials(image, context.env, options.authFile));
    const id = await pullImage(context, client, image, credentials);
    pulled.push({ image, image_ref: id });
    if (context.output === 'table') context.stdout.write(`${id}\n`);
  }
  if (context.output === 'json') writeJson(context, pulled);
}

async function readPassword(stdin: NodeJS.ReadableStream): Promise<string> {
  let text = '';
  for await (const chunk of stdin) {
    text += String(chunk);
    if (text.length > MAX_PASSWORD) throw new UsageError('the password is longer than 64 KiB');
  }
  return text.replace(/\r?\n$/, '');
}
