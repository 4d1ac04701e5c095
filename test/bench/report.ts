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
}

/** Compares round by round, so that what disturbs the machine for a while disturbs both. */
export function compare({ values }: Row): Comparison | undefined {
  const [ours, theirs] = [values.get('berth'), values.get('containerd')];
  if (ours === undefined || theirs === undefined) return undefined;
  const ratios = ours.slice(0, theirs.length).map((value, round) => value / (theirs[round] ?? Number.NaN));
  if (ratios.some(Number.isNaN)) return undefined;
  const ratio = median(ratios);
  const spread: [number, number] = [Math.min(...ratios), Math.max(...ratios)];
  return { ratio, spread };
}

/** Whether berth keeps to all bars that could be measured; undefined when none could. */
export function isMet({ figure, values }: Row, comparison: Comparison | undefined): boolean | undefined {
  const ours = values.get('berth');
  const checks: boolean[] = [];
  if (figure.bar !== undefined && comparison !== undefined) checks.push(meets(comparison.ratio, figure.bar));
  if (figure.own !== undefined && ours !== undefined) checks.push(meets(median(ours), figure.own));
  return checks.length === 0 ? undefined : checks.every(Boolean);
}

function meets(value: number, bar: Bar): boolean {
  return 'atMost' in bar ? value <= bar.atMost : value >= bar.atLeast;
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
      return all === undefined || all.some(Number.isNaN) ? '' : `${digits(median(all))} ${unit}`;
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
  const { bar, own, unit } = row.figure;
  const bars = [bar && barText(bar), own && `${barText(own)} ${unit}`].filter((text) => text !== undefined);
  const met = isMet(row, comparison);
  return [
    comparison?.ratio.toFixed(2) ?? '',
    comparison?.spread.map((ratio) => ratio.toFixed(2)).join('–') ?? '',
    bars.join(', '),
    met === undefined ? '' : met ? 'met' : 'missed',
  ];
}

function barText(bar: Bar): string {
  return 'atMost' in bar ? `≤ ${bar.atMost}` : `≥ ${bar.atLeast}`;
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
    const { key, title, unit, bar, own } = row.figure;
    const comparison = compare(row);
    const values = Object.fromEntries(row.values);
    return { key, title: title.trim(), unit, bar, own, values, ...comparison, met: isMet(row, comparison) };
  });
  return JSON.stringify({ ...about, figures }, null, 2);
}
