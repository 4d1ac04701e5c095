import { ByteWriter } from '../util/byte-writer.ts';
import type { PodMetrics } from './collect.ts';
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
export class PodsText {
  /** The format wants all series of a family in one place. */
  readonly #parts = families.map((family) => ({
    family,
    name: Buffer.from(`${family.name}{`),
    text: new ByteWriter(),
  }));

  add({ pod, containers }: PodMetrics): void {
    for (const { base, measured } of [...pod, ...containers]) {
      const labels = Buffer.from(labelText(BASE_LABELS, base));
      for (const { family, name, text } of this.#parts) {
        for (const sample of family.read(measured)) {
          if (text.length === 0) text.text(head(family));
          text.bytes(name).bytes(labels);
          if (sample.labels.length > 0) text.text(`,${labelText(family.labels, sample.labels)}`);
          text.bytes(LABELS_END).text(numberOf(family, sample.value)).byte(LINE_END);
        }
      }
    }
  }

  /** All that has been added, once. */
  take(): Buffer[] {
    return this.#parts.map(({ text }) => text.take());
  }
}

function numberOf({ unit }: Family, value: bigint): string {
  return unit === 'nanoseconds' ? String(Number(value) / 1e9) : String(value);
}
