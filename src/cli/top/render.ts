import { printable } from '../output.ts';
import { formatBytes } from '../units.ts';
import type { Choice, SortKey } from './keys.ts';
import type { Resource, TopRow } from './rows.ts';

/** All that a frame is made of. */
export interface Frame {
  readonly rows: readonly TopRow[];
  readonly choice: Choice;
  readonly width: number;
  /** Undefined: as many lines as there are rows. */
  readonly height: number | undefined;
  readonly colours: boolean;
  /** Said under the first line, such as why the figures are old. */
  readonly notice: string;
}

type Colour = 'red' | 'yellow' | 'green' | 'bold' | 'faint' | 'inverse';
const CODES: Readonly<Record<Colour, number>> = {
  ...{ bold: 1, faint: 2, inverse: 7 },
  ...{ red: 31, green: 32, yellow: 33 },
};

interface Cell {
  readonly text: string;
  readonly colour?: Colour | undefined;
}

interface Column {
  readonly head: string;
  readonly width: number;
  readonly align: 'left' | 'right';
  /** Those with the greatest go first on a terminal that is too narrow. */
  readonly drop: number;
  readonly sort?: SortKey;
  readonly cell: (row: TopRow) => Cell;
}

const BAR = 10;
/** Of a limit, from which a bar is yellow and red. */
const [CLOSE, FULL] = [0.75, 0.9];
/** Percent of waiting from which a figure is yellow and red. */
const [SOME, MUCH] = [10, 40];
/** The first line, the notice, the heads, and the keys at the bottom. */
const FRAME_LINES = 4;
const GAP = 2;
/** Narrower than this nothing can be told of a pod. */
const MIN_NAME = 12;

const amount = (
  head: string,
  sort: SortKey,
  drop: number,
  of: (row: TopRow) => number | undefined,
): Column => ({
  ...{ head, width: 9, align: 'right', drop, sort },
  cell: (row) => plain(of(row), (value) => formatBytes(BigInt(Math.round(value)))),
});

const waiting = (head: string, resource: Resource): Column => ({
  ...{ head, width: 5, align: 'right', drop: 4 },
  cell: ({ pressure }) => {
    const percent = pressure[resource];
    const colour = percent === undefined ? 'faint' : level(percent, SOME, MUCH);
    return { ...plain(percent, (value) => value.toFixed(1)), colour };
  },
});

/** Beside the names of pod and container, which take what is left. */
const FIGURES: readonly Column[] = [
  {
    ...{ head: 'CPU', width: 6, align: 'right', drop: 0, sort: 'cpu' },
    cell: ({ cores }) => plain(cores, (value) => value.toFixed(2)),
  },
  {
    ...{ head: 'OF LIMIT', width: BAR + 5, align: 'left', drop: 3 },
    cell: ({ cores, coreLimit }) => bar(cores, coreLimit),
  },
  amount('MEMORY', 'memory', 1, ({ memory }) => memory),
  {
    ...{ head: 'OF LIMIT', width: BAR + 5, align: 'left', drop: 2 },
    cell: ({ memory, memoryLimit }) => bar(memory, memoryLimit),
  },
  amount('SWAP', 'swap', 6, ({ swap }) => swap),
  amount('DISK', 'disk', 5, ({ disk }) => disk),
  waiting('W-CPU', 'cpu'),
  waiting('W-MEM', 'memory'),
  waiting('W-IO', 'io'),
];

/** The rows that the choice lets through, in its order. */
export function arrange(rows: readonly TopRow[], { sort, reversed, filter }: Choice): TopRow[] {
  const shown = rows.filter(({ id, pod, name }) => `${pod}/${name} ${id}`.includes(filter));
  const byName = (a: TopRow, b: TopRow) => (`${a.pod}/${a.name}` < `${b.pod}/${b.name}` ? -1 : 1);
  const value: (row: TopRow) => number | undefined = {
    cpu: ({ cores }: TopRow) => cores,
    memory: ({ memory }: TopRow) => memory,
    swap: ({ swap }: TopRow) => swap,
    disk: ({ disk }: TopRow) => disk,
    pressure: ({ pressure: { cpu, memory, io } }: TopRow) => Math.max(cpu ?? -1, memory ?? -1, io ?? -1),
    name: () => 0,
  }[sort];
  // What is unknown comes after 0.
  shown.sort((a, b) => (value(b) ?? -1) - (value(a) ?? -1) || byName(a, b));
  return reversed ? shown.reverse() : shown;
}

/** How many rows fit a terminal of so many lines. */
export function pageOf(height: number): number {
  return Math.max(1, height - FRAME_LINES);
}

/** The first row to show, so that the window stays within the list. */
export function clampOffset(offset: number, count: number, page: number): number {
  return Math.max(0, Math.min(offset, count - page));
}

/** The lines of a frame, none longer than the terminal is wide. */
export function renderTop({ rows, choice, width, height, colours, notice }: Frame): string[] {
  const paint = (text: string, colour: Colour | undefined) =>
    colours && colour !== undefined ? `\x1b[${CODES[colour]}m${text}\x1b[0m` : text;
  const shown = arrange(rows, choice);
  const page = height === undefined ? shown.length : pageOf(height);
  const offset = clampOffset(choice.offset, shown.length, page);
  const columns = fitting(shown, width);
  const line = (cells: readonly (Cell & Pick<Column, 'width' | 'align'>)[]) =>
    cells
      .map((cell) => {
        const text = cut(cell.text, cell.width);
        const padded = cell.align === 'left' ? text.padEnd(cell.width) : text.padStart(cell.width);
        return paint(padded, cell.colour);
      })
      .join(' '.repeat(GAP));
  const heads = columns.map((column): Cell & Column => ({
    ...column,
    text: column.head,
    colour: column.sort === choice.sort ? 'inverse' : 'bold',
  }));
  const lines = [
    cut(summary(shown, rows.length), width),
    paint(cut(notice === '' ? filterText(choice) : notice, width), notice === '' ? undefined : 'red'),
    line(heads),
    ...shown
      .slice(offset, offset + page)
      .map((row) => line(columns.map((column) => ({ ...column, ...column.cell(row) })))),
  ];
  if (height === undefined) return lines.map((text) => text.trimEnd()).filter((text) => text !== '');
  while (lines.length < height - 1) lines.push('');
  return [...lines, paint(cut(KEYS, width), 'faint')].slice(0, height);
}

const KEYS =
  'q quit   c CPU   m memory   s swap   d disk   p waiting   n name   r reverse   / filter   arrows scroll';

function summary(shown: readonly TopRow[], all: number): string {
  const sum = (of: (row: TopRow) => number | undefined) =>
    shown.reduce((total, row) => total + (of(row) ?? 0), 0);
  const pods = new Set(shown.map(({ pod }) => pod)).size;
  const some = shown.length === all ? '' : ` of ${all}`;
  const memory = formatBytes(BigInt(Math.round(sum((row) => row.memory))));
  return `${shown.length}${some} containers, ${pods} pods   CPU ${sum((row) => row.cores).toFixed(2)}   memory ${memory}`;
}

function filterText({ filter, typing }: Choice): string {
  if (typing) return `filter: ${filter}_`;
  return filter === '' ? '' : `filter: ${filter} (Esc shows all)`;
}

/** The columns that fit: names as wide as they need, figures by their worth. */
function fitting(rows: readonly TopRow[], width: number): Column[] {
  const longest = (texts: readonly string[], least: number) =>
    Math.max(least, ...texts.map((text) => printable(text).length));
  const name = Math.min(
    24,
    Math.max(4, Math.floor(width / 4)),
    longest(
      rows.map((row) => row.name),
      4,
    ),
  );
  const pod = longest(
    rows.map((row) => row.pod),
    3,
  );
  let figures = [...FIGURES];
  const taken = () => figures.reduce((total, column) => total + column.width + GAP, name + GAP);
  for (;;) {
    const worst = Math.max(...figures.map(({ drop }) => drop));
    if (worst === 0 || taken() + Math.min(pod, MIN_NAME) <= width) break;
    figures = figures.filter(({ drop }) => drop !== worst);
  }
  const left = Math.max(1, Math.min(pod, width - taken()));
  return [
    {
      ...{ head: 'POD', width: left, align: 'left', drop: 0, sort: 'name' },
      cell: (row) => ({ text: row.pod }),
    },
    { ...{ head: 'NAME', width: name, align: 'left', drop: 0 }, cell: (row) => ({ text: row.name }) },
    ...figures,
  ];
}

function plain(value: number | undefined, format: (value: number) => string): Cell {
  return value === undefined ? { text: '-', colour: 'faint' } : { text: format(value) };
}

/** How much of a limit is in use. */
function bar(used: number | undefined, limit: number | undefined): Cell {
  if (used === undefined || limit === undefined) return { text: '-', colour: 'faint' };
  const part = Math.min(1, used / limit);
  const text = '|'.repeat(Math.round(part * BAR)).padEnd(BAR);
  return {
    text: `${text} ${Math.round(part * 100)
      .toString()
      .padStart(3)}%`,
    colour: level(part, CLOSE, FULL),
  };
}

function level(value: number, some: number, much: number): Colour {
  return value >= much ? 'red' : value >= some ? 'yellow' : 'green';
}

function cut(text: string, width: number): string {
  const clean = printable(text);
  return clean.length <= width ? clean : `${clean.slice(0, Math.max(0, width - 1))}…`.slice(0, width);
}
