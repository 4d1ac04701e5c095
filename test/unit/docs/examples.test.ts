import { existsSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { parsePods } from '../../../src/cli/pod/parse.ts';
import { run } from '../../../src/cli/program.ts';
import { parseConfig } from '../../../src/config/load.ts';
import { configSchema } from '../../../src/config/schema.ts';
import { parseHosts } from '../../../src/image/registry/hosts.ts';
import { parseConf } from '../../../src/network/conf.ts';
import { type Block, type Document, ROOT, readDocuments } from '../../support/documents.ts';

const documents = await readDocuments();

/** Files that commands write by `cat > NAME <<'EOF'` count as examples of their own. */
function examples({ name, blocks }: Document): { where: string; file: string; text: string; block: Block }[] {
  return blocks.flatMap((block) => {
    const where = `${name}:${block.line}`;
    if (block.language !== 'sh') return [{ where, file: '', text: block.text, block }];
    return [...block.text.matchAll(/^cat > (\S+) <<'?EOF'?\n([\s\S]*?)^EOF$/gm)].map(
      ([, file = '', text = '']) => ({ where, file, text, block }),
    );
  });
}

const all = documents.flatMap(examples);
const ofKind = (language: string, suffix: RegExp) =>
  all.filter(({ block, file }) => block.language === language || suffix.test(file));

describe('examples in the documents', () => {
  it.each(ofKind('toml', /\.toml$/))('TOML at $where', async ({ text, file, where }) => {
    const name = file || (/^# (\/\S+)/.exec(text)?.[1] ?? '');
    expect(name, 'begins with a comment that names its file').not.toBe('');
    if (!name.endsWith('/hosts.toml')) return void parseConfig(text, where);
    const folder = path.dirname(name);
    expect(path.dirname(folder)).toBe(configSchema.parse({}).images.registry_config_dir);
    const hosts = await parseHosts(text, folder, path.basename(folder));
    expect(hosts.length).toBeGreaterThan(0);
  });

  it.each(ofKind('yaml', /\.ya?ml$/))('YAML at $where', ({ text, where }) => {
    for (const document of parseAllDocuments(text)) {
      if (!('toJS' in document)) continue;
      expect(document.errors, where).toEqual([]);
      const value = document.toJS() as Record<string, unknown>;
      expect(value.apiVersion, where).toBeTypeOf('string');
      if (value.kind === 'KubeletConfiguration')
        expect(value.containerRuntimeEndpoint).toBe(configSchema.parse({}).listen);
    }
    if (!/^kind: Pod$/m.test(text)) return;
    for (const { warnings } of parsePods(text, where)) expect(warnings, where).toEqual([]);
  });

  it.each(ofKind('json', /\.(json|conf|conflist)$/))('JSON at $where', ({ text, file }) => {
    const value: unknown = JSON.parse(text);
    expect(value).toBeTypeOf('object');
    if (/\.conf(list)?$/.test(file)) expect(parseConf(text, file.endsWith('list')).plugins).not.toEqual([]);
  });

  it('has blocks of known kinds only, so that none goes unchecked', () => {
    const kinds = new Set(documents.flatMap(({ blocks }) => blocks.map(({ language }) => language)));
    expect(
      [...kinds].filter((kind) => !['sh', 'text', 'toml', 'yaml', 'json', 'ini', ''].includes(kind)),
    ).toEqual([]);
  });
});

/** The anchor that code hosts give to a heading. */
function anchor(heading: string): string {
  return heading
    .toLowerCase()
    .replace(/[^\p{L}\p{N}\s_-]/gu, '')
    .trim()
    .replaceAll(/\s/g, '-');
}

describe('links in the documents', () => {
  const headings = new Map(
    documents.map(({ name, text }) => [
      name,
      [...text.matchAll(/^#+ (.*)$/gm)].map(([, heading = '']) => anchor(heading)),
    ]),
  );
  const links = documents.flatMap(({ name, text }) =>
    [...text.matchAll(/\]\(([^)\s]+)\)/g)].map(([, target = '']) => ({ name, target })),
  );

  it.each(links.filter(({ target }) => !/^https?:/.test(target)))('$name → $target', ({ name, target }) => {
    const [file = '', fragment] = target.split('#');
    const wanted = file === '' ? name : path.join(path.dirname(name), file);
    expect(existsSync(path.join(ROOT, wanted)), wanted).toBe(true);
    if (fragment !== undefined) expect(headings.get(wanted)).toContain(fragment);
  });

  it('lead from the README to every document', () => {
    for (const { name } of documents.slice(1))
      expect(links, name).toContainEqual({ name: 'README.md', target: name });
  });
});

describe('docs/cli.md', () => {
  it('has every verb of berth in a heading and in a command that is run', async () => {
    let help = '';
    const stdout = { write: (text: string) => (help += text) } as unknown as NodeJS.WritableStream;
    const signal = new AbortController().signal;
    await run(['--help'], { stdin: process.stdin, stdout, stderr: stdout, env: {}, signal });
    const commands = /Commands:\n([\s\S]*?)\n\n/.exec(help)?.[1] ?? '';
    const verbs = [...commands.matchAll(/^ {2}([a-z-]+)/gm)]
      .map(([, verb]) => verb)
      .filter((v) => v !== 'help');
    expect(verbs.length).toBeGreaterThan(10);
    const document = documents.find(({ name }) => name === 'docs/cli.md');
    const titles = [...(document?.text ?? '').matchAll(/^## (.*)$/gm)].flatMap(([, title = '']) =>
      title.split(/[:,]?\s+/),
    );
    const run_ = (document?.blocks ?? [])
      .filter(({ language, info }) => language === 'sh' && !info.startsWith('norun'))
      .map(({ text }) => text)
      .join('');
    for (const verb of verbs) {
      expect(titles, `a heading that names ${verb}`).toContain(verb);
      expect(run_, `an example of ${verb}`).toMatch(new RegExp(`\\bberth ${verb}\\b`));
    }
  });
});
