import { parseTimestamp } from '../units.ts';

/**
 * A piece of a container's output as CRI's log format has it: `TIME STREAM TAGS TEXT` per line, where the
 * first of the tags (separated by colons) is F for the end of a line of output and P for a part of one.
 */
export interface LogEntry {
  /** Nanoseconds since the epoch. */
  time: bigint;
  /** The time as the file spells it. */
  timeText: string;
  stream: 'stdout' | 'stderr';
  /** False for a part that more of the same line follows. */
  final: boolean;
  /** Bytes of output, without newline. */
  text: Buffer;
}

const SPACE = 0x20;
/** No header is longer; what has no header in as many bytes is no CRI log line. */
const MAX_HEADER = 128;

/** Reads one line without its newline; undefined when it is not in CRI's format. */
export function parseLine(line: Buffer): LogEntry | undefined {
  const first = line.indexOf(SPACE);
  const second = line.indexOf(SPACE, first + 1);
  if (first < 0 || second < 0 || second > MAX_HEADER) return undefined;
  const third = line.indexOf(SPACE, second + 1);
  // An empty line of output may lack the blank after its tag.
  const tagEnd = third < 0 ? line.length : third;
  const timeText = line.toString('latin1', 0, first);
  const stream = line.toString('latin1', first + 1, second);
  const tag = line.toString('latin1', second + 1, Math.min(tagEnd, second + MAX_HEADER)).split(':')[0];
  const time = parseTimestamp(timeText);
  if (time === undefined || (stream !== 'stdout' && stream !== 'stderr') || (tag !== 'F' && tag !== 'P')) {
    return undefined;
  }
  return {
    time,
    timeText,
    stream,
    final: tag === 'F',
    text: line.subarray(Math.min(tagEnd + 1, line.length)),
  };
}
