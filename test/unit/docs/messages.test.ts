import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { ROOT, readDocument, tableRows } from '../../support/documents.ts';

/** All source text, with the breaks of long messages taken out. */
async function sources(): Promise<string> {
  const texts: string[] = [];
  for (const folder of ['src', 'cri', 'cgroups']) {
    for (const entry of await readdir(path.join(ROOT, folder), { withFileTypes: true, recursive: true })) {
      if (entry.name.endsWith('.ts'))
        texts.push(await readFile(path.join(entry.parentPath, entry.name), 'utf8'));
    }
  }
  return texts
    .join('\n')
    .replace(/['`] \+\s+['`]/g, '')
    .replaceAll("\\'", "'");
}

/** Shorter ones say too little to be looked for. */
const MIN_LENGTH = 8;

const quoted: { where: string; message: string }[] = [];
for (const [name, heading] of [
  ['docs/troubleshooting.md', 'You see'],
  ['docs/registries.md', 'Message'],
] as const) {
  for (const row of tableRows((await readDocument(name)).text, heading)) {
    for (const [, message = ''] of (row[heading] ?? '').matchAll(/`([^`]+)`/g)) {
      if (message.replaceAll('…', '').trim().length >= MIN_LENGTH && !message.startsWith('kubectl'))
        quoted.push({ where: name, message });
    }
  }
}

describe('messages that the documents quote', async () => {
  const source = await sources();

  it('are many', () => expect(quoted.length).toBeGreaterThan(15));

  it.each(quoted)('berth says "$message"', ({ message }) => {
    const parts = message
      .split(/…|status \d+/)
      .map((part) => part.trim())
      .filter((part) => part.length >= MIN_LENGTH);
    for (const part of parts) expect(source.includes(part), `nothing says "${part}"`).toBe(true);
  });
});
