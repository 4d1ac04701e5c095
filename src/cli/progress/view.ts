/** How far one layer of a pull is; sizes in bytes. */
export interface Layer {
  digest: string;
  total: number;
  done: number;
  phase: 'WAITING' | 'DOWNLOADING' | 'UNPACKING' | 'DONE' | 'EXISTS';
}

/** Shows the layers of one pull. `close` is safe to call again. */
export interface LayerView {
  update(layer: Layer): void;
  close(): void;
}

/** A phase as people read it. */
export const PHASES: Readonly<Record<Layer['phase'], string>> = {
  WAITING: 'waiting',
  DOWNLOADING: 'downloading',
  UNPACKING: 'unpacking',
  DONE: 'done',
  EXISTS: 'already there',
};
