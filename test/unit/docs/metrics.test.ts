import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { Events } from '../../../src/events/events.ts';
import { DaemonMetrics } from '../../../src/metrics/daemon.ts';
import { BASE_LABELS, families } from '../../../src/metrics/families.ts';
import { ROOT, readDocument, tableRows } from '../../support/documents.ts';
import { fakeServices } from '../recover/services.ts';

const fake = fakeServices();
const daemon = new DaemonMetrics(true);
afterAll(() => {
  daemon.close();
  fake.close();
});

/** What berthd serves: names, with the labels of each. */
async function served(): Promise<Map<string, string[]>> {
  daemon.rpc('Version')('OK');
  daemon.rpc('Version')('INTERNAL');
  const s = Object.assign(
    {
      events: new Events(fake.s.sandboxes, fake.s.containers),
      cni: { status: async () => ({ ready: true, message: '' }) },
      images: {
        list: () => [],
        fsInfo: () => ({ usedBytes: 0n }),
        activity: () => ({ downloads: 0, unpackings: 0, downloadedBytes: 0n, unpackedBytes: 0n }),
      },
    },
    fake.s,
  );
  const names = new Map(families.map(({ name, labels }) => [name, [...BASE_LABELS, ...labels]]));
  for (const { name, lines, type } of await daemon.read(s as never, { rounds: 0, seconds: 0, cgroups: 0 })) {
    const labels = [...new Set(lines.flatMap((line) => Object.keys(line.labels ?? {})))];
    if (type !== 'histogram') names.set(name, labels);
    else for (const suffix of ['_bucket', '_sum', '_count']) names.set(`${name}${suffix}`, labels);
  }
  return names;
}
const real = await served();
/** As a document names a histogram. */
const documentable = new Set([...real.keys()].map((name) => name.replace(/_(bucket|sum|count)$/, '')));

/** Added by Prometheus to whatever it scrapes. */
const SCRAPED = ['instance', 'job'];

/** What an expression names: metrics with the labels that are matched or grouped by. */
function usesOf(expression: string): { name: string; labels: string[] }[] {
  const names = [...expression.matchAll(/\b((?:berth|container|process|nodejs)_[a-z_0-9]+)(\{[^}]*\})?/g)];
  return names.map(([, name = '', matchers = '']) => ({
    name,
    labels: [...matchers.matchAll(/(\w+)\s*(?:=|!=|=~|!~)"/g)].map(([, label = '']) => label),
  }));
}

function check(where: string, expression: string): void {
  const uses = usesOf(expression);
  expect(uses.length + (expression.startsWith('up{') ? 1 : 0), `${where} measures something`).toBeGreaterThan(
    0,
  );
  const grouped = [...expression.matchAll(/\bby \(([^)]*)\)/g)].flatMap(([, list = '']) =>
    list.split(/,\s*/),
  );
  for (const { name, labels } of uses) {
    const known = real.get(name);
    expect(known, `${where}: nothing serves ${name}`).toBeDefined();
    for (const label of [...labels, ...grouped])
      expect([...(known ?? []), ...SCRAPED], `${where}: ${name} has no label ${label}`).toContain(label);
  }
}

describe('docs/metrics.md', async () => {
  const { text } = await readDocument('docs/metrics.md');
  const rows = tableRows(text, 'Metric');

  it('has a row for each metric that berthd serves, and for no other', () => {
    expect(rows.map(({ Metric = '' }) => Metric.replaceAll('`', '')).sort()).toEqual(
      [...documentable].sort(),
    );
  });

  it('tells the labels of each', () => {
    for (const row of rows) {
      const name = (row.Metric ?? '').replaceAll('`', '');
      const cell = row.Labels ?? row['Labels of its own'] ?? '';
      const told = [...cell.matchAll(/`(\w+)`/g)].map(([, label = '']) => label);
      const labels = real.get(name) ?? real.get(`${name}_bucket`) ?? [];
      const own = labels.filter((label) => !BASE_LABELS.includes(label as never) && label !== 'le');
      expect(told, name).toEqual(own);
    }
  });
});

describe('docs/alerts.yaml', async () => {
  const { groups } = parse(await readFile(path.join(ROOT, 'docs/alerts.yaml'), 'utf8')) as {
    groups: { rules: { alert: string; expr: string; annotations: Record<string, string> }[] }[];
  };
  const rules = groups.flatMap((group) => group.rules);

  it.each(rules)('$alert measures what berthd serves and says what to do', ({ alert, expr, annotations }) => {
    check(alert, expr);
    expect(annotations.summary).toMatch(/\{\{ \$labels\.(instance|pod) \}\}/);
    expect(annotations.description).toMatch(/\.$/);
  });

  it('names no alert twice', () => {
    expect(new Set(rules.map(({ alert }) => alert)).size).toBe(rules.length);
    expect(rules.length).toBeGreaterThan(8);
  });
});

describe('docs/grafana/berth.json', async () => {
  const dashboard = JSON.parse(await readFile(path.join(ROOT, 'docs/grafana/berth.json'), 'utf8')) as {
    panels: { id: number; type: string; title: string; targets?: { expr: string }[] }[];
    templating: { list: { name: string; type: string; definition?: string }[] };
  };
  const panels = dashboard.panels.filter(({ type }) => type !== 'row');

  it.each(panels)('panel "$title" shows what berthd serves', ({ title, targets = [] }) => {
    expect(targets.length).toBeGreaterThan(0);
    for (const { expr } of targets) check(title, expr);
  });

  it('asks for variables of which it has all, and that berthd serves', () => {
    const variables = dashboard.templating.list;
    const names = variables.map(({ name }) => name);
    for (const { definition } of variables) if (definition !== undefined) check(definition, definition);
    const used = [...JSON.stringify(panels).matchAll(/\$\{?([a-z]+)\b/g)].map(([, name = '']) => name);
    expect(new Set(used)).toEqual(new Set(names));
    expect(new Set(dashboard.panels.map(({ id }) => id)).size).toBe(dashboard.panels.length);
  });
});
