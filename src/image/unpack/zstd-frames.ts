import { BerthError } from '../../errors.ts';

type Step = 'magic' | 'header' | 'block' | 'content';

const MAGIC = 0xfd2fb528;
/** Of skippable frames, without the last four bits, which may be anything. */
const SKIPPABLE_MAGIC = 0x184d2a5;

/**
 * Cuts a zstd stream at its frame boundaries (RFC 8878, section 3.1), without decompressing.
 *
 * Node's decompressor stops for good at the end of a frame when more input came in the same write, and
 * reports no error, so a layer of several frames (zstd:chunked, parallel compressors) would silently be
 * cut short. Written frame by frame, it goes on.
 */
export class ZstdFrames {
  #step: Step = 'magic';
  /** Bytes of the frame's or block's header so far. */
  #head: number[] = [];
  #wanted = 4;
  #hasChecksum = false;
  #lastBlock = false;

  /** True between frames: where a stream may end. */
  get atBoundary(): boolean {
    return this.#step === 'magic' && this.#head.length === 0;
  }

  /**
   * The pieces of `chunk` to be written one by one; none reaches over the end of a frame.
   *
   * @throws BerthError `invalid` where no frame begins
   */
  *split(chunk: Buffer): Generator<Buffer> {
    let start = 0;
    let at = 0;
    while (at < chunk.length) {
      const taken = this.#step === 'content' ? Math.min(this.#wanted, chunk.length - at) : 1;
      if (this.#step !== 'content') this.#head.push(chunk[at] ?? 0);
      at += taken;
      this.#wanted -= taken;
      while (this.#wanted === 0) this.#advance();
      if (!this.atBoundary) continue;
      yield chunk.subarray(start, at);
      start = at;
    }
    if (at > start) yield chunk.subarray(start, at);
  }

  /** The present step has its bytes; afterwards more are wanted, or the next step wants none. */
  #advance(): void {
    const head = Buffer.from(this.#head);
    if (this.#step === 'magic') this.#magic(head);
    else if (this.#step === 'header') this.#header(head);
    else if (this.#step === 'block') this.#block(head);
    else if (this.#lastBlock) this.#go('magic', 4);
    else this.#go('block', 3);
  }

  #go(step: Step, wanted: number): void {
    this.#step = step;
    this.#wanted = wanted;
    this.#head = [];
  }

  #magic(head: Buffer): void {
    const magic = head.readUInt32LE(0);
    if (magic === MAGIC) {
      this.#go('header', 1);
    } else if (magic >>> 4 !== SKIPPABLE_MAGIC) {
      throw new BerthError('invalid', 'zstd: something other than a frame where a frame must begin');
    } else if (head.length < 8) {
      this.#wanted = 4;
    } else {
      this.#lastBlock = true;
      this.#go('content', head.readUInt32LE(4));
    }
  }

  #header(head: Buffer): void {
    const descriptor = head[0] ?? 0;
    const isSingleSegment = (descriptor & 0x20) !== 0;
    const contentSize = [isSingleSegment ? 1 : 0, 2, 4, 8][descriptor >> 6] ?? 0;
    const dictionaryId = [0, 1, 2, 4][descriptor & 3] ?? 0;
    const length = 1 + (isSingleSegment ? 0 : 1) + dictionaryId + contentSize;
    this.#hasChecksum = (descriptor & 4) !== 0;
    if (head.length < length) this.#wanted = length - head.length;
    else this.#go('block', 3);
  }

  #block(head: Buffer): void {
    const value = head.readUIntLE(0, 3);
    this.#lastBlock = (value & 1) === 1;
    const isRunLength = ((value >> 1) & 3) === 1;
    this.#go('content', (isRunLength ? 1 : value >> 3) + (this.#lastBlock && this.#hasChecksum ? 4 : 0));
  }
}
