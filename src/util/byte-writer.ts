/** Of the buffer at first. */
const INITIAL_BYTES = 16_384;

/** Builds one long run of bytes out of many short ones, without garbage for each. */
export class ByteWriter {
  #buffer = Buffer.alloc(0);
  #length = 0;

  /** How many bytes have been written. */
  get length(): number {
    return this.#length;
  }

  bytes(value: Uint8Array): this {
    this.#reserve(value.length);
    this.#buffer.set(value, this.#length);
    this.#length += value.length;
    return this;
  }

  /** In UTF-8. */
  text(value: string): this {
    // No character of a string takes more than three bytes (a surrogate pair takes four).
    this.#reserve(value.length * 3);
    this.#length += this.#buffer.write(value, this.#length);
    return this;
  }

  byte(value: number): this {
    this.#reserve(1);
    this.#buffer[this.#length++] = value;
    return this;
  }

  /** What has been written, which is this writer's no more: it is empty after. */
  take(): Buffer {
    const written = this.#buffer.subarray(0, this.#length);
    this.#buffer = Buffer.alloc(0);
    this.#length = 0;
    return written;
  }

  #reserve(count: number): void {
    const wanted = this.#length + count;
    if (wanted <= this.#buffer.length) return;
    const larger = Buffer.allocUnsafeSlow(Math.max(wanted, this.#buffer.length * 2, INITIAL_BYTES));
    this.#buffer.copy(larger, 0, 0, this.#length);
    this.#buffer = larger;
  }
}
