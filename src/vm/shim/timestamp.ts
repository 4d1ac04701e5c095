/** A time as protobuf has it. */
interface Timestamp {
  seconds: string;
  nanos: number;
}

/** A time in nanoseconds since the epoch as protobuf has it; undefined when it is not known. */
export function timestamp(at: bigint): Timestamp;
export function timestamp(at: bigint | undefined): Timestamp | undefined;
export function timestamp(at: bigint | undefined): Timestamp | undefined {
  if (at === undefined) return undefined;
  return { seconds: String(at / 1_000_000_000n), nanos: Number(at % 1_000_000_000n) };
}
