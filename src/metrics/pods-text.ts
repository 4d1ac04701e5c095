import { ByteWriter } from '../util/byte-writer.ts';
import type { PodMetrics, Series } from './collect.ts';
import { head, labelText } from './exposition.ts';
import { BASE_LABELS, families } from './families.ts';
import type { Family } from './family.ts';

const LABELS_END = Buffer.from('} ');
const LINE_END = 0x0a;

/**
 * The series of pods and containers in Prometheus' text format: the same as the kubelet gets through CRI,
 * but seconds keep their fractions, and the time is that of the scrape. In bytes: a hundred pods have two
 * megabytes of text, most of it labels that repeat.
 */
export function podsText(pods: readonly PodMetrics[]): Buffer {
  const series = pods
    .flatMap(({ pod, containers }): readonly Series[] => [...pod, ...containers])
    .map(({ base, measured }) => ({ measured, base: Buffer.from(labelText(BASE_LABELS, base)) }));
  const text = new ByteWriter();
  for (const family of families) {
    const name = Buffer.from(`${family.name}{`);
    let isFirst = true;
    for (const { base, measured } of series) {
      for (const { labels, value } of family.read(measured)) {
        if (isFirst) text.text(head(family));
        isFirst = false;
        text.bytes(name).bytes(base);
        if (labels.length > 0) text.text(`,${labelText(family.labels, labels)}`);
        text.bytes(LABELS_END).text(numberOf(family, value)).byte(LINE_END);
      }
    }
  }
  return text.take();
}

function numberOf({ unit }: Family, value: bigint): string {
  return unit === 'nanoseconds' ? String(Number(value) / 1e9) : String(value);
}
