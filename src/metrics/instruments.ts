import type { Line, MetricLines } from './exposition.ts';

/** A counter for each set of label values. */
export class Counter {
  readonly #name: string;
  readonly #help: string;
  readonly #labels: readonly string[];
  readonly #values = new Map<string, number>();

  constructor(name: string, help: string, labels: readonly string[] = []) {
    this.#name = name;
    this.#help = help;
    this.#labels = labels;
    // One without labels is there from the start, so that its first increase is seen.
    if (labels.length === 0) this.#values.set('[]', 0);
  }

  increase(...labels: string[]): void {
    const key = JSON.stringify(labels);
    this.#values.set(key, (this.#values.get(key) ?? 0) + 1);
  }

  read(): MetricLines {
    const lines = [...this.#values].map(([key, value]) => ({ labels: labelled(this.#labels, key), value }));
    return { name: this.#name, help: this.#help, type: 'counter', lines };
  }
}

/** A histogram for each value of one label. */
export class Histogram {
  readonly #name: string;
  readonly #help: string;
  readonly #label: string;
  readonly #bounds: readonly number[];
  readonly #series = new Map<string, { counts: number[]; sum: number }>();

  /** @param bounds upper ends of the buckets, ascending; one without an end is added */
  constructor(name: string, help: string, label: string, bounds: readonly number[]) {
    this.#name = name;
    this.#help = help;
    this.#label = label;
    this.#bounds = [...bounds, Number.POSITIVE_INFINITY];
  }

  observe(label: string, value: number): void {
    let series = this.#series.get(label);
    if (series === undefined) {
      series = { counts: this.#bounds.map(() => 0), sum: 0 };
      this.#series.set(label, series);
    }
    const bucket = this.#bounds.findIndex((bound) => value <= bound);
    series.counts[bucket] = (series.counts[bucket] ?? 0) + 1;
    series.sum += value;
  }

  read(): MetricLines {
    const lines = [...this.#series].flatMap(([label, { counts, sum }]): Line[] => {
      const labels = { [this.#label]: label };
      let total = 0;
      const buckets = this.#bounds.map((bound, i): Line => {
        total += counts[i] ?? 0;
        const le = bound === Number.POSITIVE_INFINITY ? '+Inf' : String(bound);
        return { suffix: '_bucket', labels: { ...labels, le }, value: total };
      });
      return [...buckets, { suffix: '_sum', labels, value: sum }, { suffix: '_count', labels, value: total }];
    });
    return { name: this.#name, help: this.#help, type: 'histogram', lines };
  }
}

function labelled(names: readonly string[], key: string): Record<string, string> {
  const values: string[] = JSON.parse(key);
  return Object.fromEntries(names.map((name, i) => [name, values[i] ?? '']));
}
