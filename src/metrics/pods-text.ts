import type { PodMetrics, Series } from './collect.ts';
import { head, labelText } from './exposition.ts';
import { BASE_LABELS, families } from './families.ts';
import type { Family } from './family.ts';

/**
 * The series of pods and containers in Prometheus' text format: the same as the kubelet gets through CRI,
 * but seconds keep their fractions, and the time is that of the scrape.
 */
export function podsText(pods: readonly PodMetrics[]): string {
  const series = pods
    .flatMap(({ pod, containers }): readonly Series[] => [...pod, ...containers])
    .map(({ base, measured }) => ({ measured, base: labelText(BASE_LABELS, base) }));
  const parts: string[] = [];
  for (const family of families) {
    let isFirst = true;
    for (const { base, measured } of series) {
      for (const { labels, value } of family.read(measured)) {
        if (isFirst) parts.push(head(family));
        isFirst = false;
        const own = labels.length === 0 ? '' : `,${labelText(family.labels, labels)}`;
        parts.push(`${family.name}{${base}${own}} ${numberOf(family, value)}\n`);
      }
    }
  }
  return parts.join('');
}

function numberOf({ unit }: Family, value: bigint): string {
  return unit === 'nanoseconds' ? String(Number(value) / 1e9) : String(value);
}
