import type { Readable } from 'node:stream';
import type { TerminalSize } from './session.ts';

/** Bytes of one size; clients send `{"Width":80,"Height":24}` and a newline. */
const MAX_SIZE_TEXT = 1024;
const MAX_DIMENSION = 0xffff;

/**
 * Reads terminal sizes, JSON objects one after the other, from a stream that may cut them anywhere. What is
 * none is skipped: a wrong size must not end a session.
 */
export class ResizeReader {
  #listener: ((size: TerminalSize) => void) | undefined;
  #last: TerminalSize | undefined;
  #text = '';

  read(stream: Readable): void {
    stream.on('data', (chunk: Buffer) => this.push(chunk.toString('latin1')));
  }

  push(text: string): void {
    this.#text = (this.#text + text).slice(-MAX_SIZE_TEXT);
    for (let end = this.#text.indexOf('}'); end >= 0; end = this.#text.indexOf('}')) {
      const size = parseSize(this.#text.slice(0, end + 1));
      this.#text = this.#text.slice(end + 1);
      if (size === undefined) continue;
      this.#last = size;
      this.#listener?.(size);
    }
  }

  /** Calls back with each size from now on, and at once with the last one that has come. */
  listen(listener: (size: TerminalSize) => void): void {
    this.#listener = listener;
    if (this.#last !== undefined) listener(this.#last);
  }
}

function parseSize(text: string): TerminalSize | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text.slice(Math.max(0, text.indexOf('{'))));
  } catch {
    return undefined;
  }
  if (typeof value !== 'object' || value === null) return undefined;
  const { Width: width, Height: height } = value as { Width?: unknown; Height?: unknown };
  return isDimension(width) && isDimension(height) ? { width, height } : undefined;
}

function isDimension(value: unknown): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= MAX_DIMENSION;
}
