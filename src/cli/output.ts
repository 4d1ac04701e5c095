import Table from 'cli-table3';
import type { Context } from './context.ts';

/** A stream of a terminal says so; ones given by tests may not. */
export function isTerminal(stream: NodeJS.WritableStream): boolean {
  return 'isTTY' in stream && stream.isTTY === true;
}

/** Borderless columns, two blanks apart; the last one is not padded. */
export function renderTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const table = new Table({
    head: [...head],
    chars: Object.fromEntries(BORDERS.map((name) => [name, ''])),
    style: { 'padding-left': 0, 'padding-right': 2, head: [], border: [], compact: true },
  });
  table.push(...rows.map((row) => row.map(printable)));
  return `${table
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n')}\n`;
}

const BORDERS = [
  ...['top', 'top-mid', 'top-left', 'top-right', 'bottom', 'bottom-mid', 'bottom-left', 'bottom-right'],
  ...['left', 'left-mid', 'mid', 'mid-mid', 'right', 'right-mid', 'middle'],
];

/** Names come from images and pods that others made; their control characters must not reach a terminal. */
export function printable(text: string): string {
  return text.replace(/\p{Cc}/gu, '?');
}

/**
 * JSON for programs. Fields have CRI's names, enums the names of their values; 64-bit numbers are decimal
 * strings (as in protobuf's JSON mapping), so that no reader rounds them; absent messages are null.
 */
export function writeJson(context: Context, value: unknown): void {
  const text = JSON.stringify(
    value,
    (_key, item: unknown) => (typeof item === 'bigint' ? String(item) : item),
    2,
  );
  context.stdout.write(`${text}\n`);
}

/** A list for people or for programs, whichever was asked for; `quiet` prints the ids alone. */
export function writeList<T>(
  context: Context,
  items: readonly T[],
  columns: { head: readonly string[]; row: (item: T) => readonly string[]; id: (item: T) => string },
  options: { quiet?: boolean } = {},
): void {
  if (context.output === 'json') writeJson(context, items);
  else if (options.quiet) context.stdout.write(items.map((item) => `${columns.id(item)}\n`).join(''));
  else context.stdout.write(renderTable(columns.head, items.map(columns.row)));
}

/** An id as tables show it: its first twelve digits, without the name of its hash. */
export function shortId(id: string, full = false): string {
  return full ? id : id.replace(/^sha256:/, '').slice(0, 12);
}

/** The last word of an enum's value (`CONTAINER_RUNNING` → `running`). */
export function stateName(state: string | number): string {
  return String(state)
    .replace(/^(CONTAINER|SANDBOX)_/, '')
    .toLowerCase();
}
