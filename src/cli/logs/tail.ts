import type { FileHandle } from 'node:fs/promises';
import { parseLine } from './line.ts';

const BLOCK = 64 << 10;
const NEWLINE = 0x0a;

/**
 * The offset in a CRI log at which its last `count` lines of output begin. Lines that the runtime wrote in
 * parts count once. Reads backwards, so that the size of the file does not matter.
 */
export async function tailOffset(file: FileHandle, count: number): Promise<number> {
  let position = (await file.stat()).size;
  /** The beginning of a line whose rest was seen already; it starts at `position`. */
  let head: Buffer = Buffer.alloc(0);
  let ends = 0;
  while (position > 0) {
    const size = Math.min(BLOCK, position);
    const { buffer, bytesRead } = await file.read(Buffer.alloc(size), 0, size, position - size);
    const block = Buffer.concat([buffer.subarray(0, bytesRead), head]);
    position -= size;
    let end = block.length;
    for (;;) {
      const newline = end > 0 ? block.lastIndexOf(NEWLINE, end - 1) : -1;
      if (newline < 0) break;
      const line = block.subarray(newline + 1, end);
      if (line.length > 0 && parseLine(line)?.final !== false && ++ends > count) {
        return position + end + 1;
      }
      end = newline;
    }
    head = block.subarray(0, end);
  }
  return head.length > 0 && parseLine(head)?.final !== false && ++ends > count ? head.length + 1 : 0;
}
