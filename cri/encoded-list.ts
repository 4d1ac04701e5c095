/**
 * A list response whose items are encoded once each. Records are immutable and replaced when they change,
 * so a record's bytes are good for as long as the record is.
 *
 * The encoding of a message with several items is that of messages with one item each, put together
 * (protobuf.dev, "Encoding": a repeated field is one tagged record per element).
 */
export class EncodedList<R extends object> {
  readonly #encode: (record: R) => Buffer;
  readonly #known = new WeakMap<R, Buffer>();

  /** @param encode the encoded response with this record as its only item */
  constructor(encode: (record: R) => Buffer) {
    this.#encode = encode;
  }

  /** The encoded response with these records. */
  of(records: readonly R[]): Buffer {
    return Buffer.concat(records.map((record) => this.one(record)));
  }

  /** The encoded response with this record alone. */
  one(record: R): Buffer {
    let bytes = this.#known.get(record);
    if (bytes === undefined) {
      bytes = this.#encode(record);
      this.#known.set(record, bytes);
    }
    return bytes;
  }
}
