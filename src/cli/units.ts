const NS_PER_SECOND = 1_000_000_000n;

/** Bytes as people read them: powers of 1024, at most three digits and one decimal. */
export function formatBytes(bytes: bigint): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'];
  let value = Number(bytes);
  let unit = 0;
  while (value >= 1023.5 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const text = unit === 0 || value >= 99.95 ? value.toFixed(0) : value.toFixed(1);
  return `${text} ${units[unit]}`;
}

/** How long ago a moment was, by its two largest units at most (`5s`, `3m 20s`, `2d 4h`). Both in ns. */
export function formatAge(then: bigint, now: bigint): string {
  if (then <= 0n) return '-';
  return formatDuration(now > then ? now - then : 0n);
}

/** A duration in nanoseconds by its two largest units at most. */
export function formatDuration(ns: bigint): string {
  const seconds = ns / NS_PER_SECOND;
  const parts: [bigint, string][] = [
    [seconds / 86_400n, 'd'],
    [(seconds / 3_600n) % 24n, 'h'],
    [(seconds / 60n) % 60n, 'm'],
    [seconds % 60n, 's'],
  ];
  const first = parts.findIndex(([value]) => value > 0n);
  if (first < 0) return '0s';
  return parts
    .slice(first, first + 2)
    .filter(([value]) => value > 0n)
    .map(([value, unit]) => `${value}${unit}`)
    .join(' ');
}

/** The moment in nanoseconds since the epoch of an RFC 3339 time, or undefined when it is none. */
export function parseTimestamp(text: string): bigint | undefined {
  const parts = /^(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?(Z|z|[+-]\d\d:\d\d)$/.exec(text);
  if (parts === null) return undefined;
  const millis = Date.parse(`${parts[1]}${parts[3]}`);
  if (Number.isNaN(millis)) return undefined;
  return BigInt(millis) * 1_000_000n + BigInt((parts[2] ?? '').padEnd(9, '0'));
}

/**
 * A duration such as `90s`, `1h30m` or `250ms` in nanoseconds, or undefined when it is none. A bare
 * number counts seconds.
 */
export function parseDuration(text: string): bigint | undefined {
  if (/^\d{1,12}$/.test(text)) return BigInt(text) * NS_PER_SECOND;
  if (!/^(\d{1,12}(ms|s|m|h|d))+$/.test(text)) return undefined;
  const units: Record<string, bigint> = {
    ms: 1_000_000n,
    s: NS_PER_SECOND,
    m: 60n * NS_PER_SECOND,
    h: 3_600n * NS_PER_SECOND,
    d: 86_400n * NS_PER_SECOND,
  };
  let sum = 0n;
  for (const [, count, unit] of text.matchAll(/(\d+)(ms|s|m|h|d)/g)) {
    sum += BigInt(count ?? 0) * (units[unit ?? ''] ?? 0n);
  }
  return sum;
}
