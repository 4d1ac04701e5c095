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

/** A table with its keys, or one for each entry of a table of tables. */
function tableLines(name: string, table: object, schema: z.ZodType): string[] {
  const inner = schema instanceof z.ZodPrefault || schema instanceof z.ZodDefault ? schema.unwrap() : schema;
  if (inner instanceof z.ZodRecord) {
    return Object.entries(table).flatMap(([key, entry]: [string, object]) =>
      tableLines(`${name}.${key}`, entry, inner.valueType as z.ZodType),
    );
  }
  const shape: Record<string, z.ZodType> =
    inner instanceof z.ZodObject ? (inner.shape as Record<string, z.ZodType>) : {};
  const keys = Object.entries(table).flatMap(([key, value]: [string, unknown]) => [
    `# ${shape[key]?.description ?? ''}`,
    stringify({ [key]: value }).trim(),
  ]);
  return [`[${name}]`, ...keys];
}
