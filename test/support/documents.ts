import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';

/** The checkout. */
export const ROOT = path.resolve(import.meta.dirname, '../..');

/** A fenced block of a document. */
export interface Block {
  /** The first word after the fence: sh, text, toml, yaml, json … */
  language: string;
  /** The rest of that line. */
  info: string;
  text: string;
  /** Of the fence, counted from 1. */
  line: number;
}

/** A Markdown file of the project. */
export interface Document {
  /** Relative to the checkout. */
  name: string;
  text: string;
  blocks: Block[];
}

/** README.md and all of docs/. */
export async function readDocuments(): Promise<Document[]> {
  const docs = (await readdir(path.join(ROOT, 'docs'))).filter((name) => name.endsWith('.md')).sort();
  const names = ['README.md', ...docs.map((name) => `docs/${name}`)];
  return Promise.all(names.map(readDocument));
}

/** One of them. */
export async function readDocument(name: string): Promise<Document> {
  const text = await readFile(path.join(ROOT, name), 'utf8');
  return { name, text, blocks: parseBlocks(text) };
}

function parseBlocks(text: string): Block[] {
  const blocks: Block[] = [];
  let open: { indent: string; language: string; info: string; line: number; lines: string[] } | undefined;
  for (const [index, line] of text.split('\n').entries()) {
    const fence = /^( *)```(\S*)\s*(.*)$/.exec(line);
    if (fence === null)
      open?.lines.push(line.startsWith(open.indent) ? line.slice(open.indent.length) : line);
    else if (open === undefined) {
      const [, indent = '', language = '', info = ''] = fence;
      open = { indent, language, info, line: index + 1, lines: [] };
    } else {
      const { language, info, line: start, lines } = open;
      blocks.push({ language, info, line: start, text: `${lines.join('\n')}\n` });
      open = undefined;
    }
  }
  if (open !== undefined) throw new Error(`line ${open.line}: a block that does not end`);
  return blocks;
}

/** Rows of all tables whose first column has this heading, as maps from heading to cell. */
export function tableRows(text: string, firstHeading: string): Record<string, string>[] {
  const rows: Record<string, string>[] = [];
  let headings: string[] | undefined;
  for (const line of text.split('\n')) {
    if (!line.startsWith('|')) {
      headings = undefined;
      continue;
    }
    const cells = line
      .replace(/\\\|/g, '\0')
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim().replaceAll('\0', '|'));
    if (headings === undefined) headings = cells;
    else if (headings[0] === firstHeading && !/^:?-+:?$/.test(cells[0] ?? ''))
      rows.push(Object.fromEntries(headings.map((heading, at) => [heading, cells[at] ?? ''])));
  }
  return rows;
}
