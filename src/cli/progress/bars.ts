import { MultiBar, type SingleBar } from 'cli-progress';
import { shortId } from '../output.ts';
import { formatBytes } from '../units.ts';
import { type Layer, type LayerView, PHASES } from './view.ts';

/** A bar per layer on a terminal. */
export class LayerBars implements LayerView {
  readonly #bars: MultiBar;
  readonly #byDigest = new Map<string, SingleBar>();
  #closed = false;

  constructor(stream: NodeJS.WritableStream) {
    this.#bars = new MultiBar({
      stream,
      format: '{id}  [{bar}]  {done} / {total_}  {phase}',
      barCompleteChar: '=',
      barIncompleteChar: ' ',
      barsize: 30,
      hideCursor: true,
      // The library would catch SIGINT for itself; `close` puts the cursor back on every way out.
      gracefulExit: false,
      fps: 10,
      autopadding: false,
    });
  }

  update(layer: Layer): void {
    if (this.#closed) return;
    const here = layer.phase === 'EXISTS' ? layer.total : layer.done;
    const shown = {
      id: shortId(layer.digest),
      done: formatBytes(BigInt(here)),
      total_: formatBytes(BigInt(layer.total)),
      phase: PHASES[layer.phase],
    };
    // An empty layer would divide by zero.
    const [value, total] = layer.total > 0 ? [here, layer.total] : [1, 1];
    const bar = this.#byDigest.get(layer.digest);
    if (bar === undefined) this.#byDigest.set(layer.digest, this.#bars.create(total, value, shown));
    else bar.update(value, shown);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#byDigest.size > 0) this.#bars.stop();
  }
}
