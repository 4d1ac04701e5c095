const MIN_MATCH = 4;
const MAGIC = 0x184c2102;
/** More than any kernel, so that a broken archive cannot take all memory. */
const MAX_BYTES = 512 * 1024 * 1024;

/**
 * Unpacks what `lz4 -l` packs, as kernel images are (lz4's "legacy frame": the magic number, then blocks, each
 * after its packed length).
 *
 * @throws RangeError for what is no such archive
 */
export function unpackLegacyLz4(packed: Buffer): Buffer {
  if (packed.length < 4 || packed.readUInt32LE(0) !== MAGIC) throw new RangeError('no lz4 archive');
  const blocks: Buffer[] = [];
  let total = 0;
  for (let at = 4; at + 4 <= packed.length; ) {
    const length = packed.readUInt32LE(at);
    at += 4;
    // The length of the whole, which the kernel's build puts last, is no block's.
    if (length === 0 || at + length > packed.length) break;
    const block = unpackBlock(packed.subarray(at, at + length));
    total += block.length;
    if (total > MAX_BYTES) throw new RangeError('an lz4 archive beyond all bounds');
    blocks.push(block);
    at += length;
  }
  return Buffer.concat(blocks);
}

/** Blocks hold at most 8 MiB (lz4's lz4io.c, LEGACY_BLOCKSIZE). */
const MAX_BLOCK_BYTES = 8 * 1024 * 1024;

/** One block: literals and copies of what came before, in turns (lz4_Block_format.md). */
function unpackBlock(packed: Buffer): Buffer {
  const out = Buffer.allocUnsafe(MAX_BLOCK_BYTES);
  let [from, to] = [0, 0];
  const byte = (): number => {
    const value = packed[from++];
    if (value === undefined) throw new RangeError('an lz4 block ends early');
    return value;
  };
  const long = (short: number): number => {
    let length = short;
    for (let more = short === 15 ? 255 : 0; more === 255; length += more) more = byte();
    return length;
  };
  while (from < packed.length) {
    const token = byte();
    const literals = long(token >> 4);
    if (from + literals > packed.length || to + literals > out.length) {
      throw new RangeError('an lz4 block is broken');
    }
    packed.copy(out, to, from, from + literals);
    from += literals;
    to += literals;
    if (from === packed.length) break;
    const offset = byte() | (byte() << 8);
    const length = long(token & 15) + MIN_MATCH;
    if (offset === 0 || offset > to || to + length > out.length)
      throw new RangeError('an lz4 block is broken');
    // Source and target may overlap: a copy of one byte is how runs are packed.
    for (let i = 0; i < length; i++, to++) out[to] = out[to - offset] ?? 0;
  }
  return out.subarray(0, to);
}
