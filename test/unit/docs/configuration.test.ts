import { parse } from 'smol-toml';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { parseConfig } from '../../../src/config/load.ts';
import { defaultConfigText } from '../../../src/config/print-default.ts';
import { configSchema } from '../../../src/config/schema.ts';
import { readDocument, tableRows } from '../../support/documents.ts';

/** The part of a JSON Schema that configurations use. */
interface Schema {
  type?: string;
  enum?: string[];
  pattern?: string;
  anyOf?: Schema[];
  default?: unknown;
  items?: Schema;
  properties?: Record<string, Schema>;
  additionalProperties?: Schema | false;
}

const document = await readDocument('docs/configuration.md');
const rows = tableRows(document.text, 'Key').map(({ Key = '', Type = '', Default = '', Meaning = '' }) => ({
  key: Key.replaceAll('`', ''),
  type: Type,
  // Without the marks of code; "none" for a key that must be given.
  value: /^`(.*)`$/.exec(Default)?.[1],
  meaning: Meaning,
}));

/** Keys of the schema as the document writes them, a table's name before its keys. */
function flatten(schema: Schema, prefix = ''): [string, Schema][] {
  return Object.entries(schema.properties ?? {}).flatMap(([name, value]): [string, Schema][] => {
    const key = `${prefix}${name}`;
    if (value.properties !== undefined) return flatten(value, `${key}.`);
    if (typeof value.additionalProperties === 'object')
      return [[key, value], ...flatten(value.additionalProperties, `${key}.<handler>.`)];
    if (value.items?.properties !== undefined) return [[key, value], ...flatten(value.items, `${key}[].`)];
    return [[key, value]];
  });
}

const keys = flatten(z.toJSONSchema(configSchema, { io: 'input' }) as Schema);

/** What the document calls a type. */
function typeName({ type, enum: values, pattern = '', items, anyOf }: Schema): string {
  // What may be left empty.
  if (anyOf !== undefined) return typeName(anyOf.find((option) => option.pattern !== undefined) ?? {});
  if (values !== undefined) return 'one of';
  if (type === 'array' && items?.properties !== undefined) return 'list of tables';
  if (type === 'array') return items?.pattern === undefined ? 'list of strings' : 'list of paths';
  if (type === 'object') return 'table';
  if (type !== 'string') return type ?? '';
  if (pattern.startsWith('^unix')) return 'socket';
  if (pattern.startsWith('^\\/')) return 'path';
  return pattern === '' ? 'string' : 'name';
}

describe('docs/configuration.md', () => {
  it('has every key of the schema and no other, in its order', () => {
    expect(rows.map(({ key }) => key)).toEqual(keys.map(([key]) => key));
  });

  it.each(keys)('tells the truth of %s', (key, schema) => {
    const row = rows.find((candidate) => candidate.key === key);
    const real = key.split('.').reduce<unknown>(
      // A table's default comes from its keys' defaults.
      (value, name) => (value as Record<string, unknown> | undefined)?.[name],
      configSchema.parse({}),
    );
    const expected = /<handler>|\[\]/.test(key) ? schema.default : real;
    expect(row?.value === undefined ? undefined : parse(`value = ${row.value}`).value).toEqual(expected);
    expect(row?.type).toBe(typeName(schema));
    for (const value of schema.enum ?? []) expect(row?.meaning).toContain(`\`${value}\``);
    expect(row?.meaning).toMatch(/^.{20,}$/s);
  });

  it('has examples that berthd accepts', () => {
    const examples = document.blocks.filter(({ language }) => language === 'toml');
    expect(examples.length).toBeGreaterThan(2);
    for (const { text, line } of examples) parseConfig(text, `docs/configuration.md:${line}`);
  });
});

describe('berthd config default', () => {
  it('prints what berthd accepts and takes for the defaults', () => {
    expect(parseConfig(defaultConfigText(), 'default')).toEqual(configSchema.parse({}));
  });

  it('explains each key', () => {
    const lines = defaultConfigText().split('\n');
    for (const [at, line] of lines.entries()) {
      if (/^\w+ =/.test(line) && !lines.slice(0, at).some((earlier) => earlier.startsWith('[runtimes.')))
        expect(lines[at - 1], line).toMatch(/^# ./);
    }
  });
});
