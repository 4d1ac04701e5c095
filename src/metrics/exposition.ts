/** A value and the labels of its line: names and values in turn. */
export interface Line {
  /** `_bucket`, `_sum`, `_count` of a histogram. */
  readonly suffix?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly value: number;
}

/** All lines of one name. */
export interface MetricLines {
  readonly name: string;
  readonly help: string;
  readonly type: 'counter' | 'gauge' | 'histogram';
  readonly lines: readonly Line[];
}

/** Of the answer's type: Prometheus' text format, version 0.0.4. */
export const CONTENT_TYPE = 'text/plain; version=0.0.4; charset=utf-8';

/** The first two lines of a name (prometheus.io/docs, "Exposition formats"). */
export function head({ name, help, type }: Pick<MetricLines, 'name' | 'help' | 'type'>): string {
  const text = help.replaceAll('\\', '\\\\').replaceAll('\n', '\\n');
  return `# HELP ${name} ${text}\n# TYPE ${name} ${type}\n`;
}

/** `a="1",b="2"`, without braces. */
export function labelText(names: readonly string[], values: readonly string[]): string {
  return names.map((name, i) => `${name}="${escapeLabel(values[i] ?? '')}"`).join(',');
}

function escapeLabel(value: string): string {
  // Almost none needs it.
  if (!/[\\"\n]/.test(value)) return value;
  return value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
}

/** Text of whole metrics. */
export function expose(metrics: readonly MetricLines[]): string {
  return metrics
    .map((metric) => head(metric) + metric.lines.map((l) => lineText(metric.name, l)).join(''))
    .join('');
}

function lineText(name: string, { suffix = '', labels = {}, value }: Line): string {
  const text = labelText(Object.keys(labels), Object.values(labels));
  return `${name}${suffix}${text === '' ? '' : `{${text}}`} ${number(value)}\n`;
}

function number(value: number): string {
  return value === Number.POSITIVE_INFINITY ? '+Inf' : String(value);
}
