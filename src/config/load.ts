import { readFile } from 'node:fs/promises';
import { parse, TomlError } from 'smol-toml';
import type { z } from 'zod';
import { BerthError, isErrno } from '../errors.ts';
import { type Config, configSchema } from './schema.ts';

/**
 * Reads and checks a configuration file. Without `path` the standard place is tried, and its absence
 * means the defaults.
 *
 * @throws BerthError `invalid`, naming file and key, for what is missing, unknown or wrong.
 */
export async function loadConfig(path: string | undefined): Promise<Config> {
  const file = path ?? '/etc/berth/config.toml';
  let text = '';
  try {
    text = await readFile(file, 'utf8');
  } catch (e: unknown) {
    if (path !== undefined || !isErrno(e, 'ENOENT')) {
      throw new BerthError('invalid', `configuration ${file} cannot be read: ${(e as Error).message}`, {
        cause: e,
      });
    }
  }
  return parseConfig(text, file);
}

/** Checks configuration text; `name` is how errors call it. @throws BerthError `invalid`. */
export function parseConfig(text: string, name: string): Config {
  let raw: unknown;
  try {
    raw = parse(text);
  } catch (e: unknown) {
    if (e instanceof TomlError) {
      throw new BerthError(
        'invalid',
        `${name}:${e.line}:${e.column}: not TOML: ${e.message.split('\n')[0]}`,
        { cause: e },
      );
    }
    throw e;
  }
  const result = configSchema.safeParse(raw);
  if (!result.success) {
    const problems = result.error.issues.map(describeIssue).join('; ');
    throw new BerthError('invalid', `${name}: ${problems}`, { cause: result.error });
  }
  const config = result.data;
  if (!Object.hasOwn(config.runtimes, config.default_runtime)) {
    throw new BerthError(
      'invalid',
      `${name}: default_runtime: "${config.default_runtime}" is not among runtimes (${Object.keys(config.runtimes).join(', ')})`,
    );
  }
  return config;
}

function describeIssue(issue: z.core.$ZodIssue): string {
  const path = issue.path.map(String).join('.');
  if (issue.code === 'unrecognized_keys') {
    const keys = issue.keys.map((key) => (path === '' ? key : `${path}.${key}`));
    return `unknown key ${keys.join(', ')}`;
  }
  return `${path}: ${issue.message}`;
}
