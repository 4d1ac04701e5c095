import Table from 'cli-table3';
import { type Bar, type Figure, median } from './measure.ts';

/** One row: a figure with the value of each round, by daemon. */
export interface Row {
  figure: Figure;
  values: Map<string, number[]>;
}

/** How berth compares with the other daemon in one row. */
export interface Comparison {
  /** Of the medians' rounds: the median of the ratios of each round. */
  ratio: number;
  /** Least and greatest ratio of a round. */
  spread: [number, number];
  met?: boolean;
}

/** Compares round by round, so that what disturbs the machine for a while disturbs both. */
export function compare({ figure, values }: Row): Comparison | undefined {
  const [ours, theirs] = [values.get('berth'), values.get('containerd')];
  if (ours === undefined || theirs === undefined) return undefined;
  const ratios = ours.slice(0, theirs.length).map((value, round) => value / (theirs[round] ?? Number.NaN));
  const ratio = median(ratios);
  const spread: [number, number] = [Math.min(...ratios), Math.max(...ratios)];
  return figure.bar === undefined ? { ratio, spread } : { ratio, spread, met: meets(ratio, figure.bar) };
}

function meets(ratio: number, bar: Bar): boolean {
  return 'atMost' in bar ? ratio <= bar.atMost : ratio >= bar.atLeast;
}

/** For people. */
export function toTable(rows: readonly Row[], names: readonly string[]): string {
  const compared = names.includes('berth') && names.includes('containerd');
  const table = new Table({
    head: ['measure', ...names, ...(compared ? ['ratio', 'spread', 'bar', ''] : ['spread'])],
    colAligns: ['left', ...names.map(() => 'right' as const), 'right', 'right', 'right', 'left'],
    style: { head: [], border: [], compact: true },
  });
  for (const row of rows) {
    const { title, unit } = row.figure;
    const values = names.map((name) => {
      const all = row.values.get(name);
      return all === undefined ? '' : `${digits(median(all))} ${unit}`;
    });
    table.push([
      title,
      ...values,
      ...(compared ? comparisonCells(row) : [range(row.values.get(names[0] ?? ''))]),
    ]);
  }
  return table.toString();
}

function comparisonCells(row: Row): string[] {
  const comparison = compare(row);
  if (comparison === undefined) return ['', '', '', ''];
  const { ratio, spread, met } = comparison;
  const { bar } = row.figure;
  const text = bar === undefined ? '' : 'atMost' in bar ? `≤ ${bar.atMost}` : `≥ ${bar.atLeast}`;
  return [
    ratio.toFixed(2),
    `${spread[0].toFixed(2)}–${spread[1].toFixed(2)}`,
    text,
    met === undefined ? '' : met ? 'met' : 'missed',
  ];
}

function range(values: readonly number[] | undefined): string {
  return values === undefined ? '' : `${digits(Math.min(...values))}–${digits(Math.max(...values))}`;
}

/** Three digits that count, no more than two behind the point. */
function digits(value: number): string {
  return value.toFixed(value >= 100 ? 0 : value >= 10 ? 1 : 2);
}

/** For programs. */
export function toJson(rows: readonly Row[], about: object): string {
  const figures = rows.map((row) => {
    const { key, title, unit, bar } = row.figure;
    return { key, title: title.trim(), unit, bar, values: Object.fromEntries(row.values), ...compare(row) };
  });
  return JSON.stringify({ ...about, figures }, null, 2);
}
