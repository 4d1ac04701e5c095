import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import path from 'node:path';
import { z } from 'zod';
import { BerthError, during, isErrno, messageOf } from '../errors.ts';
import { parseReference } from '../image/reference.ts';
import { run } from '../sys/exec.ts';
import { UsageError } from './errors.ts';

/** What a registry is shown; all empty is anonymous. */
export interface Credentials {
  username: string;
  password: string;
  identity_token?: string;
  registry_token?: string;
}

const MAX_BYTES = 16 << 20;
/** A helper may ask a cloud's metadata service. */
const HELPER_MS = 60_000;
const HUB = 'docker.io';

const entrySchema = z.object({
  auth: z.string().optional(),
  username: z.string().optional(),
  password: z.string().optional(),
  identitytoken: z.string().optional(),
  registrytoken: z.string().optional(),
});
// As docker(1) writes it (docker/cli, cli/config/configfile/file.go); other keys are not about credentials.
const configSchema = z.object({
  auths: z.record(z.string(), entrySchema).optional(),
  credHelpers: z.record(z.string(), z.string()).optional(),
  credsStore: z.string().optional(),
});
type Config = z.infer<typeof configSchema>;
const answerSchema = z.object({ Username: z.string(), Secret: z.string() });

/**
 * The credentials for an image's registry from a file of docker's format, its credential helpers included.
 *
 * @param file given by the user; otherwise `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`, which
 * need not exist
 * @returns undefined when there are none for this registry
 * @throws UsageError for a file that is wrong, BerthError `internal` when a helper fails
 */
export async function dockerCredentials(
  image: string,
  env: Readonly<Record<string, string | undefined>>,
  file?: string,
): Promise<Credentials | undefined> {
  const folder = env.DOCKER_CONFIG || path.join(env.HOME || homedir(), '.docker');
  const config = await readConfig(file ?? path.join(folder, 'config.json'), file !== undefined);
  if (config === undefined) return undefined;
  const { host, path: repository } = parseReference(image);
  const helper = config.credHelpers?.[host] ?? (host === HUB ? config.credHelpers?.[HUB_KEY] : undefined);
  if (helper !== undefined) return askHelper(helper, host === HUB ? HUB_KEY : host, env);
  const entry = findEntry(config, host, repository);
  if (entry !== undefined && Object.values(entry).some(Boolean)) return fromEntry(entry, host);
  // docker login leaves an empty entry for each registry whose credentials the store has.
  return config.credsStore ? askHelper(config.credsStore, host === HUB ? HUB_KEY : host, env) : undefined;
}

/** How docker names its hub. */
const HUB_KEY = 'https://index.docker.io/v1/';

async function readConfig(file: string, isRequired: boolean): Promise<Config | undefined> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (e: unknown) {
    if (!isRequired && isErrno(e, 'ENOENT', 'ENOTDIR')) return undefined;
    throw during(`read ${file}`, e);
  }
  try {
    if (text.length > MAX_BYTES) throw new Error('is too large');
    return configSchema.parse(JSON.parse(text));
  } catch (e: unknown) {
    const [issue] = e instanceof z.ZodError ? e.issues : [];
    // A parser's message would quote the file, and with it passwords.
    const problem = issue === undefined ? 'is no JSON' : `${issue.path.join('.')}: ${issue.message}`;
    throw new UsageError(`${file}: ${problem}`);
  }
}

/** The entry that names most of `host/repository`; a URL's scheme and docker's `/v1/` or `/v2/` do not count. */
function findEntry(
  { auths = {} }: Config,
  host: string,
  repository: string,
): z.infer<typeof entrySchema> | undefined {
  let best: { length: number; entry: z.infer<typeof entrySchema> } | undefined;
  for (const [key, entry] of Object.entries(auths)) {
    const plain = key.replace(/^https?:\/\//, '').replace(/(\/v[12])?\/*$/, '');
    const name = /^(index\.docker\.io|registry-1\.docker\.io)$/.test(plain) ? HUB : plain;
    const isMatch = `${host}/${repository}/`.startsWith(`${name}/`);
    if (isMatch && (best === undefined || name.length > best.length)) best = { length: name.length, entry };
  }
  return best?.entry;
}

function fromEntry(entry: z.infer<typeof entrySchema>, host: string): Credentials {
  const { auth, username = '', password = '', identitytoken = '', registrytoken = '' } = entry;
  const tokens = { identity_token: identitytoken, registry_token: registrytoken };
  if (!auth) return { username, password, ...tokens };
  const text = Buffer.from(auth, 'base64').toString('utf8');
  const colon = text.indexOf(':');
  if (colon === -1)
    throw new UsageError(`docker's config: auths of ${host}: auth is no base64 of "user:password"`);
  return { username: text.slice(0, colon), password: text.slice(colon + 1).replace(/\0+$/, ''), ...tokens };
}

/** The protocol of docker-credential-helpers: the server on stdin, JSON on stdout. */
async function askHelper(
  name: string,
  server: string,
  env: Readonly<Record<string, string | undefined>>,
): Promise<Credentials | undefined> {
  const program = `docker-credential-${name}`;
  if (!/^[\w.-]+$/.test(name))
    throw new UsageError(`docker's config: "${name}" is no name of a credential helper`);
  const limits = { timeoutMs: HELPER_MS, maxOutput: 1 << 20 };
  const result = await run([program, 'get'], { input: server, env: { ...env }, ...limits }).catch(
    (e: unknown) => {
      throw new BerthError('internal', `${program}: ${messageOf(e)}`, { cause: e });
    },
  );
  // The sentence that the protocol has for it (credentials/error.go).
  if (result.code !== 0 && /credentials not found/.test(result.stdout.toString())) return undefined;
  if (result.code !== 0)
    throw new BerthError('internal', `${program}: exit code ${result.code} for ${server}`);
  const answer = answerSchema.safeParse(parseJson(result.stdout.toString()));
  if (!answer.success)
    throw new BerthError('internal', `${program}: its answer for ${server} is not understood`);
  const { Username: username, Secret: secret } = answer.data;
  return username === '<token>'
    ? { username: '', password: '', identity_token: secret }
    : { username, password: secret };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
