/** One challenge of a WWW-Authenticate header (RFC 9110, section 11.6.1). */
export interface Challenge {
  /** Lowercase: `bearer`, `basic`. */
  scheme: string;
  /** Names are lowercase. */
  parameters: Map<string, string>;
}

const TOKEN = /^[\w!#$%&'*+.^`|~-]+/;
const QUOTED = /^"((?:[^"\\]|\\.)*)"/;
const MAX_HEADER = 16 * 1024;

/**
 * Challenges in a header's values, in order. Lenient: what cannot be read ends its header, and what was read
 * before it counts.
 */
export function parseChallenges(values: readonly string[]): Challenge[] {
  return values.flatMap((value) => parseOne(value.slice(0, MAX_HEADER)));
}

function parseOne(header: string): Challenge[] {
  const challenges: Challenge[] = [];
  let rest = header.trim();
  while (rest !== '') {
    const word = TOKEN.exec(rest)?.[0];
    if (word === undefined) break;
    const after = rest.slice(word.length);
    const equals = /^\s*=\s*/.exec(after)?.[0];
    if (equals === undefined) {
      challenges.push({ scheme: word.toLowerCase(), parameters: new Map() });
      rest = after.replace(/^[\s,]+/, '');
      continue;
    }
    const tail = after.slice(equals.length);
    const quoted = QUOTED.exec(tail);
    const value = quoted?.[1]?.replace(/\\(.)/g, '$1') ?? TOKEN.exec(tail)?.[0];
    const current = challenges.at(-1);
    if (value === undefined || current === undefined) break;
    current.parameters.set(word.toLowerCase(), value);
    rest = tail.slice(quoted === null ? value.length : quoted[0].length).replace(/^[\s,]+/, '');
  }
  return challenges;
}
