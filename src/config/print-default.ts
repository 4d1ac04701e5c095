import { stringify } from 'smol-toml';
import { z } from 'zod';
import { configSchema } from './schema.ts';

/** The default configuration as a commented TOML file. */
export function defaultConfigText(): string {
  const defaults = configSchema.parse({});
  const lines = ['# berthd configuration; every value here is the default.', ''];
  const tables: string[] = [];
  for (const [key, value] of Object.entries(defaults)) {
    const schema = configSchema.shape[key as keyof typeof configSchema.shape];
    const comment = schema.description ?? '';
    if (typeof value === 'object' && !Array.isArray(value)) {
      tables.push(`# ${comment}`, ...tableLines(key, value, schema), '');
    } else {
      lines.push(`# ${comment}`, stringify({ [key]: value }).trim(), '');
    }
  }
  return [...lines, ...tables].join('\n');
}

function tableLines(name: string, table: object, schema: z.ZodType): string[] {
  const inner = schema instanceof z.ZodPrefault ? schema.unwrap() : schema;
  const shape: Record<string, z.ZodType> =
    inner instanceof z.ZodObject ? (inner.shape as Record<string, z.ZodType>) : {};
  const lines = Object.values(table).every((value) => typeof value === 'object' && !Array.isArray(value))
    ? []
    : [`[${name}]`];
  for (const [key, value] of Object.entries(table) as [string, unknown][]) {
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
      lines.push(stringify({ [name]: { [key]: value } }).trim());
      continue;
    }
    const comment = shape[key]?.description;
    if (comment !== undefined) lines.push(`# ${comment}`);
    lines.push(stringify({ [key]: value }).trim());
  }
  return lines;
}
