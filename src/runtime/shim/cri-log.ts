const NEWLINE = 0x0a;
const LINE_END = Buffer.of(NEWLINE);
const NS_PER_SECOND = 1_000_000_000n;
/** Of the text of one line, bytes: what readers hold at a time, and what other runtimes cut at. */
const MAX_TEXT = 16 * 1024;

/**
 * Output as lines of a CRI log (`<time> <stream> <tag> <text>`, kubernetes/design-proposals, kubelet-cri-logging). What has
 * no end of line yet becomes a part of its own (tag P) instead of being kept back: the log is then as complete as
 * what was read, whenever the daemon ends.
 *
 * @param at nanoseconds since the epoch
 */
export function criLines(stream: 'stdout' | 'stderr', output: Buffer, at: bigint): Buffer {
  const time = rfc3339(at);
  const [whole, part] = [Buffer.from(`${time} ${stream} F `), Buffer.from(`${time} ${stream} P `)];
  const pieces: Buffer[] = [];
  for (let start = 0; start < output.length; ) {
    const end = output.indexOf(NEWLINE, start);
    const isWhole = end >= 0 && end - start <= MAX_TEXT;
    const next = isWhole ? end + 1 : Math.min(start + MAX_TEXT, output.length);
    pieces.push(isWhole ? whole : part, output.subarray(start, next));
    if (!isWhole) pieces.push(LINE_END);
    start = next;
  }
  return Buffer.concat(pieces);
}

/** `2026-01-02T03:04:05.000000006Z`: all nine digits, so that lines sort as text. */
export function rfc3339(at: bigint): string {
  const seconds = new Date(Number(at / NS_PER_SECOND) * 1000).toISOString().slice(0, 19);
  return `${seconds}.${String(at % NS_PER_SECOND).padStart(9, '0')}Z`;
}
