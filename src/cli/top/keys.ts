/** What rows can be sorted by. */
export type SortKey = 'cpu' | 'memory' | 'swap' | 'disk' | 'pressure' | 'name';

/** Orders, with the key that chooses each. */
export const SORTS: readonly { key: string; by: SortKey }[] = [
  { key: 'c', by: 'cpu' },
  { key: 'm', by: 'memory' },
  { key: 's', by: 'swap' },
  { key: 'd', by: 'disk' },
  { key: 'p', by: 'pressure' },
  { key: 'n', by: 'name' },
];

/** What the person at the keyboard has chosen. */
export interface Choice {
  readonly sort: SortKey;
  readonly reversed: boolean;
  /** Only rows whose pod, name or id holds this. */
  readonly filter: string;
  /** Whether keys go into the filter. */
  readonly typing: boolean;
  /** Rows above the window. */
  readonly offset: number;
  readonly quit: boolean;
}

const MAX_FILTER = 100;

const ESC = '\u001b';

const NAMES: ReadonlyMap<string, string> = new Map([
  [`${ESC}[A`, 'up'],
  [`${ESC}OA`, 'up'],
  [`${ESC}[B`, 'down'],
  [`${ESC}OB`, 'down'],
  [`${ESC}[5~`, 'page-up'],
  [`${ESC}[6~`, 'page-down'],
  [`${ESC}[H`, 'home'],
  [`${ESC}[F`, 'end'],
  [ESC, 'escape'],
  ['\r', 'enter'],
  ['\n', 'enter'],
  ['\u007f', 'backspace'],
  ['\b', 'backspace'],
  ['\u0003', 'ctrl-c'],
]);

/** A key that sends several characters (ECMA-48, CSI and SS3), or one character. */
const KEY = new RegExp(`${ESC}\\[[0-9;]*[A-Za-z~]|${ESC}O[A-Z]|.`, 'gsu');

/** The keys in what a terminal sends: a character each, or a name such as `up`, `enter`, `escape`. */
export function keysOf(input: string): string[] {
  return (input.match(KEY) ?? []).map((text) => NAMES.get(text) ?? text);
}

/**
 * The choice after a key.
 * @param page rows that are shown at once
 */
export function press(choice: Choice, key: string, page: number): Choice {
  if (key === 'ctrl-c') return { ...choice, quit: true };
  if (choice.typing) return type(choice, key);
  const sort = SORTS.find((one) => one.key === key)?.by;
  // The window shows the beginning of a list in a new order.
  if (sort !== undefined) return { ...choice, sort, reversed: false, offset: 0 };
  switch (key) {
    case 'q':
      return { ...choice, quit: true };
    case 'r':
      return { ...choice, reversed: !choice.reversed, offset: 0 };
    case '/':
      return { ...choice, typing: true };
    case 'escape':
      return { ...choice, filter: '', offset: 0 };
    case 'home':
      return { ...choice, offset: 0 };
    default:
      return { ...choice, offset: Math.max(0, choice.offset + moves(key, page)) };
  }
}

/** The renderer takes care that the window does not leave the list. */
function moves(key: string, page: number): number {
  const steps: Record<string, number> = { up: -1, down: 1, 'page-up': -page, 'page-down': page };
  return key === 'end' ? Number.MAX_SAFE_INTEGER : (steps[key] ?? 0);
}

function type(choice: Choice, key: string): Choice {
  if (key === 'enter') return { ...choice, typing: false };
  if (key === 'escape') return { ...choice, typing: false, filter: '', offset: 0 };
  if (key === 'backspace') return { ...choice, filter: choice.filter.slice(0, -1), offset: 0 };
  if (!/^[\x21-\x7e]$/.test(key) || choice.filter.length >= MAX_FILTER) return choice;
  return { ...choice, filter: choice.filter + key, offset: 0 };
}
