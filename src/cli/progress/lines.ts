import { shortId } from '../output.ts';
import { formatBytes } from '../units.ts';
import { type Layer, type LayerView, PHASES } from './view.ts';

/** A line per layer and phase, for logs and pipes. */
export class LayerLines implements LayerView {
  readonly #stream: NodeJS.WritableStream;
  readonly #phases = new Map<string, Layer['phase']>();

  constructor(stream: NodeJS.WritableStream) {
    this.#stream = stream;
  }

  update({ digest, total, phase }: Layer): void {
    if (this.#phases.get(digest) === phase) return;
    this.#phases.set(digest, phase);
    if (phase === 'WAITING') return;
    this.#stream.write(`layer ${shortId(digest)}: ${PHASES[phase]} (${formatBytes(BigInt(total))})\n`);
  }

  close(): void {}
}
